import { sql } from 'kysely';
import { z } from 'zod';
import type { Job } from '../../kernel/job.ts';
import type { ClerkMetadata } from '../../platform/clerk-metadata.ts';
import type { Log } from '../../platform/log.ts';
import type { Database } from '../../platform/postgres.ts';

export interface PassOnTiersParts {
  readonly database: Database;
  readonly clerk: ClerkMetadata;
  readonly log: Log;
}

/** The topic under which set_owner_tier writes. */
const TOPIC = 'clerk.metadata';
/** Front ends show a new tier after this long at the latest; limits hold at once and do not wait for it. */
const EVERY_MS = 5_000;
/** Calls at the same time: far below what Clerk allows in ten seconds, even to a development instance (100). */
const BATCH_MAX = 20;
/** Before the second try, doubled for each further one; longer than a call may take, so that no two of one event overlap. */
const PAUSE_SECONDS = 30;
const PAUSE_SECONDS_MAX = 3_600;
/** Tries over about a day; whoever is still not reached needs somebody to look. */
const ATTEMPTS_MAX = 30;

const payloadSchema = z.object({
  kind: z.enum(['user', 'organization']),
  externalId: z.string(),
  tier: z.string(),
});

interface Claimed {
  readonly id: string;
  readonly payload: unknown;
  readonly attempts: number;
}

/**
 * Passes tiers on to Clerk. Events are claimed in the round's transaction, sent after it, and marked as delivered in one more: a
 * crash in between sends the same value a second time, which changes nothing.
 */
export function passOnTiers({ database, clerk, log }: PassOnTiersParts): Job {
  /** Whether Clerk has it now. */
  async function deliver({ id, payload, attempts }: Claimed): Promise<boolean> {
    try {
      await clerk.setTier(payloadSchema.parse(payload));
      return true;
    } catch (err) {
      const fields = { err, event: id, attempts };
      if (attempts < ATTEMPTS_MAX) log.warn(fields, 'a tier could not be passed on to Clerk and comes again');
      else log.error(fields, 'a tier could not be passed on to Clerk and is given up; set it again to try anew');
      return false;
    }
  }

  async function deliverAll(claimed: readonly Claimed[]): Promise<void> {
    const outcomes = await Promise.all(claimed.map(async (event) => ({ id: event.id, done: await deliver(event) })));
    const delivered = outcomes.filter(({ done }) => done).map(({ id }) => id);
    if (delivered.length === 0) return;
    await database.call((tx) => sql`select mark_outbox_delivered(${delivered})`.execute(tx));
  }

  return {
    name: 'tenants.pass_on_tiers',
    everyMs: EVERY_MS,
    async run({ tx, nowMs, afterCommit }) {
      const { rows } = await sql<Claimed>`
        select * from claim_outbox_events(${TOPIC}, ${new Date(nowMs)}, ${BATCH_MAX}, ${ATTEMPTS_MAX},
          make_interval(secs => ${PAUSE_SECONDS}), make_interval(secs => ${PAUSE_SECONDS_MAX}))`.execute(tx);
      if (rows.length > 0) afterCommit(() => deliverAll(rows));
      return { claimed: rows.length };
    },
  };
}
