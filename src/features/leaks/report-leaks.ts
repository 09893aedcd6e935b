import { sql } from 'kysely';
import { z } from 'zod';
import { writing } from '../../kernel/context.ts';
import { AppError } from '../../kernel/errors.ts';
import { defineOperation } from '../../kernel/operation.ts';
import { parseKey } from '../../lib/key-format.ts';
import { hashKey } from '../../lib/key-hash.ts';
import type { Transaction } from '../../platform/postgres.ts';
import { effectFields, effectVolatile, withEffect } from '../keys/index.ts';
import type { LeaksParts } from './index.ts';

/** Keys of one report: each is some look-ups, and the caller waits for all of them. */
const KEYS_MAX = 100;
/** Well above a key's 62 characters; scanners send what surrounds one, too. */
const KEY_LENGTH_MAX = 200;

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
      ...effectFields,
    }),
    answer: 'json',
    volatile: [...effectVolatile],
    idempotent: true,
    readOnly: false,
    audit: { action: 'leaks_reported', resourceType: 'api_key' },
    example: {
      keys: ['iora_pk_live_0000000000000000000000000000000000000000000000000'],
      source: 'https://example.com/paste/1',
    },
    async run(context, { keys, source = null }) {
      const { orgId, userId } = context.principal;
      if (orgId !== null || userId !== null) {
        throw new AppError('forbidden', 'A report is made for nobody: sign it without x-iora-tenant.');
      }
      const tx = writing(context);
      const found = new Map<string, ReportedKey>();
      for (const key of await inLockOrder(tx, parts, keys)) {
        const reported = await report(tx, parts, key, source);
        if (reported !== undefined) found.set(key, reported);
      }
      const results = keys.map((key) => ({ state: found.get(key)?.state ?? ('unknown' as const) }));
      const count = (state: (typeof states)[number]) => results.filter((result) => result.state === state).length;
      context.audit.changes = { source, ...Object.fromEntries(states.map((state) => [state, count(state)])) };

      const reported = [...found.values()];
      if (reported.length === 0) return { results, effectiveOn: 0, of: 0, ms: 0 };
      // Also for what was reported before: its first news may not have reached every instance.
      const change = {
        ownerIds: [...new Set(reported.map((key) => key.owner_id))],
        tags: reported.map((key) => `family:${key.family_id}` as const),
      };
      return withEffect(parts.invalidations, context, change, { results });
    },
  });

/**
 * Those of the keys that somebody has, each once, in the order of the ids of their secrets, in which everybody locks: neither two
 * reports nor a report and whoever counts uses ever wait for each other in a circle.
 */
async function inLockOrder(tx: Transaction, { peppers }: LeaksParts, keys: readonly string[]): Promise<string[]> {
  const known: { key: string; secretId: string }[] = [];
  for (const key of new Set(keys)) {
    for (const hash of hashesOf(peppers, key)) {
      const { rows } = await sql<{ secret_id: string }>`select secret_id from find_api_key(${hash})`.execute(tx);
      if (rows[0] === undefined) continue;
      known.push({ key, secretId: rows[0].secret_id });
      break;
    }
  }
  return known.toSorted((one, other) => (one.secretId < other.secretId ? -1 : 1)).map(({ key }) => key);
}

/** Marks the key, whichever pepper it is kept under; undefined for one that is gone by now. */
async function report(
  tx: Transaction,
  { peppers, policy }: LeaksParts,
  key: string,
  source: string | null,
): Promise<ReportedKey | undefined> {
  for (const hash of hashesOf(peppers, key)) {
    const { rows } = await sql<ReportedKey>`
      select * from report_leaked_key(${hash}, ${policy === 'revoke'}, ${source})`.execute(tx);
    if (rows[0] !== undefined) return rows[0];
  }
  return undefined;
}

/** What the key may be kept under, none for what is no key. */
function hashesOf(peppers: LeaksParts['peppers'], key: string): readonly Buffer[] {
  if (parseKey(key) === null) return [];
  // The newest is asked once more at the end: the key may have been moved to it in between.
  const asked = peppers.length === 1 ? peppers : [...peppers, peppers[0]];
  return asked.map(({ secret }) => hashKey(key, secret));
}
