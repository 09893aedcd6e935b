import { sql } from 'kysely';
import type { Job } from '../../kernel/job.ts';

const HOUR_MS = 3_600_000;
/** Rows of each kind a round forgets: a fraction of a second, and with 24 rounds a day more than a busy instance of Clerk ends. */
const BATCH = 10_000;

/**
 * Forgets which messages have come, 30 days after, and which sessions and memberships ended, 90 days after: Clerk repeats a
 * message for days at most, and a token that could contradict lives for a minute. Who was deleted is never forgotten.
 */
export const forgetMessages: Job = {
  name: 'tenants.forget_messages',
  everyMs: HOUR_MS,
  async run({ tx, nowMs }) {
    const { rows } = await sql<{ messages: number; deletions: number }>`
      select messages, deletions from forget_identity_messages(${new Date(nowMs)}, ${BATCH})`.execute(tx);
    return { ...rows[0] };
  },
};
