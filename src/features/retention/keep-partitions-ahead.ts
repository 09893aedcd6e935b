import { sql } from 'kysely';
import type { Log } from '../../platform/log.ts';
import type { Database } from '../../platform/postgres.ts';

/** Months of usage and audit partitions kept ready beyond the current one. */
export const MONTHS_AHEAD = 3;
/** Making what is there already costs one catalogue query. */
const INTERVAL_MS = 3_600_000;

/**
 * Makes the partitions of the coming months now and every hour until closed. The first run must succeed: without the
 * current month nothing can be recorded. Rejects when it does not.
 */
export async function keepPartitionsAhead(parts: { database: Database; log: Log }): Promise<{ close(): void }> {
  async function run(): Promise<void> {
    const { rows } = await parts.database.call((tx) =>
      sql<{ made: number }>`select ensure_month_partitions(${MONTHS_AHEAD}) as made`.execute(tx),
    );
    const made = rows[0]?.made ?? 0;
    if (made > 0) parts.log.info({ made }, 'month partitions made');
  }
  await run();
  const timer = setInterval(() => {
    run().catch((err: unknown) => parts.log.error({ err }, 'month partitions could not be made'));
  }, INTERVAL_MS);
  timer.unref();
  return { close: () => clearInterval(timer) };
}
