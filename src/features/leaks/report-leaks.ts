import { sql } from 'kysely';
import { z } from 'zod';
import { writing } from '../../kernel/context.ts';
import { defineOperation } from '../../kernel/operation.ts';
import { parseKey } from '../../lib/key-format.ts';
import { hashKey } from '../../lib/key-hash.ts';
import type { Transaction } from '../../platform/postgres.ts';
import type { LeaksParts } from './index.ts';

/** Keys of one report: each is some look-ups, and the caller waits for all of them. */
const KEYS_MAX = 100;
/** Well above a key's 62 characters; scanners send what surrounds one, too. */
const KEY_LENGTH_MAX = 200;
/** Families of one announcement, which has to fit into the 8,000 bytes of a NOTIFY with their owners. */
const FAMILIES_PER_ANNOUNCEMENT = 50;

const states = ['restricted', 'revoked', 'unknown'] as const;

/** What `report_leaked_key` answers. */
interface ReportedKey {
  readonly family_id: string;
  readonly owner_id: string;
  readonly state: 'restricted' | 'revoked';
}

/** Cuts keys off that were found in public, or ends them, as LEAKED_KEYS says; tells their owners. */
export const reportLeaks = (parts: LeaksParts) =>
  defineOperation({
    name: 'leaks.report',
    route: { method: 'POST', path: '/leaks' },
    summary: 'Report API keys that were found in public',
    permission: null,
    callers: ['service'],
    audience: 'operator',
    transports: ['http'],
    cost: 0,
    input: z.strictObject({
      keys: z
        .array(z.string().min(1).max(KEY_LENGTH_MAX))
        .min(1)
        .max(KEYS_MAX)
        .describe('What was found; what is no key of this installation is answered with unknown'),
      source: z
        .string()
        .min(1)
        .max(500)
        .regex(/^[^\p{Cc}]+$/u, 'must hold no control characters')
        // PostgreSQL keeps no half of a surrogate pair.
        .refine((text) => text.isWellFormed(), 'must be well-formed Unicode')
        .optional()
        .describe('Where they were found, such as a URL; the owner gets to read it'),
    }),
    output: z.object({
      results: z
        .array(z.object({ state: z.enum(states) }))
        .describe('One for each key, in order: allowed nothing any more, ended, or not known here'),
      effectiveOn: z.int().describe('Live instances that are known to hold to it'),
      of: z.int().describe('Live instances; 0 where no key is known'),
      ms: z.int().describe('Milliseconds it took to know'),
    }),
    answer: 'json',
    volatile: ['effectiveOn', 'of', 'ms'],
    idempotent: true,
    readOnly: false,
    audit: { action: 'leaks_reported', resourceType: 'api_key' },
    example: {
      keys: ['iora_pk_live_0000000000000000000000000000000000000000000000000'],
      source: 'https://example.com/paste/1',
    },
    async run(context, { keys, source = null }) {
      const tx = writing(context);
      const found = new Map<string, ReportedKey>();
      // In one order whoever reports, so that two reports of the same keys never wait for each other in a circle.
      for (const key of [...new Set(keys)].sort()) {
        const reported = await report(tx, parts, key, source);
        if (reported !== undefined) found.set(key, reported);
      }
      const results = keys.map((key) => ({ state: found.get(key)?.state ?? ('unknown' as const) }));
      const count = (state: (typeof states)[number]) => results.filter((result) => result.state === state).length;
      context.audit.changes = { source, ...Object.fromEntries(states.map((state) => [state, count(state)])) };

      // Also for what was reported before: its first news may not have reached every instance.
      const announcements = await announce(tx, parts, [...found.values()]);
      const answer = { results, effectiveOn: 0, of: 0, ms: 0 };
      context.afterCommit(async () => {
        const effects = await Promise.all(announcements.map((announcement) => announcement.settle()));
        if (effects.length === 0) return;
        answer.effectiveOn = Math.min(...effects.map((effect) => effect.effectiveOn));
        answer.of = Math.max(...effects.map((effect) => effect.of));
        answer.ms = Math.max(...effects.map((effect) => effect.ms));
      });
      return answer;
    },
  });

/** Marks the key, whichever pepper it is kept under; undefined for what is no key or nobody's. */
async function report(
  tx: Transaction,
  { peppers, policy }: LeaksParts,
  key: string,
  source: string | null,
): Promise<ReportedKey | undefined> {
  if (parseKey(key) === null) return undefined;
  // The newest is asked once more at the end: the key may have been moved to it in between.
  for (const pepper of peppers.length === 1 ? peppers : [...peppers, peppers[0]]) {
    const hash = hashKey(key, pepper.secret);
    const { rows } = await sql<ReportedKey>`
      select * from report_leaked_key(${hash}, ${policy === 'revoke'}, ${source})`.execute(tx);
    if (rows[0] !== undefined) return rows[0];
  }
  return undefined;
}

async function announce(tx: Transaction, { invalidations }: LeaksParts, reported: readonly ReportedKey[]) {
  const announcements = [];
  // Owners in one order too: announcing locks them.
  const ordered = reported.toSorted((one, other) => (one.owner_id < other.owner_id ? -1 : 1));
  for (let start = 0; start < ordered.length; start += FAMILIES_PER_ANNOUNCEMENT) {
    const some = ordered.slice(start, start + FAMILIES_PER_ANNOUNCEMENT);
    announcements.push(
      await invalidations.announce(tx, {
        ownerIds: [...new Set(some.map((key) => key.owner_id))],
        tags: some.map((key) => `family:${key.family_id}` as const),
      }),
    );
  }
  return announcements;
}
