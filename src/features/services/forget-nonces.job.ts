import { sql } from 'kysely';
import type { Job } from '../../kernel/job.ts';

/** Often, and so many at once, that it keeps up with what PostgreSQL takes in: some 5,000 nonces a second. */
const EVERY_MS = 10_000;
/** Nonces of a round: about 0.3 s of PostgreSQL, far below the statement timeout. */
const NONCES_MAX = 50_000;

/** Removes nonces that no signature can be accepted with any more. */
export const forgetNonces: Job = {
  name: 'services.forget_nonces',
  everyMs: EVERY_MS,
  async run({ tx }) {
    const { rows } = await sql<{ forgotten: number }>`
      select forget_service_nonces(${NONCES_MAX}) as forgotten`.execute(tx);
    return { forgotten: rows[0]?.forgotten ?? 0 };
  },
};
