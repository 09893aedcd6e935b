import { sql } from 'kysely';
import { nextMonthStart } from '../../lib/month.ts';
import type { Log } from '../../platform/log.ts';
import type { Database } from '../../platform/postgres.ts';

export interface PartitionParts {
  readonly database: Database;
  readonly log: Log;
  readonly wallClockMs: () => number;
}

export interface PartitionKeeper {
  /** Whole months after the current one that are ready; fewer than 2 is worth an alert. */
  monthsAhead(): number;
  close(): void;
}

/** Months of usage and audit partitions kept ready beyond the current one. */
export const MONTHS_AHEAD = 3;
/** Making what is there already costs one catalogue query. */
const INTERVAL_MS = 3_600_000;

/**
 * Makes the partitions of the coming months now and every hour until closed. The first run must succeed: without the
 * current month nothing can be recorded. Rejects when it does not.
 */
export async function keepPartitionsAhead(parts: PartitionParts): Promise<PartitionKeeper> {
  let coveredUntilMs = 0;

  async function run(): Promise<void> {
    const { rows } = await parts.database.call((tx) =>
      sql<{ made: number }>`select ensure_month_partitions(${MONTHS_AHEAD}) as made`.execute(tx),
    );
    const made = rows[0]?.made ?? 0;
    coveredUntilMs = monthsLater(parts.wallClockMs(), MONTHS_AHEAD + 1);
    if (made > 0) parts.log.info({ made }, 'month partitions made');
  }
  await run();
  const timer = setInterval(() => {
    run().catch((err: unknown) => parts.log.error({ err }, 'month partitions could not be made'));
  }, INTERVAL_MS);
  timer.unref();
  return {
    monthsAhead() {
      let months = 0;
      while (months <= MONTHS_AHEAD && monthsLater(parts.wallClockMs(), months + 1) < coveredUntilMs) months += 1;
      return months;
    },
    close: () => clearInterval(timer),
  };
}

/** Start of the month that many months after the one of `ms`. */
function monthsLater(ms: number, months: number): number {
  let start = ms;
  for (let count = 0; count < months; count += 1) start = nextMonthStart(start);
  return start;
}
