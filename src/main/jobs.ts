import { sql } from 'kysely';
import type { Job } from '../kernel/job.ts';
import type { Log } from '../platform/log.ts';
import type { Database } from '../platform/postgres.ts';

export interface JobsParts {
  readonly database: Database;
  readonly jobs: readonly Job[];
  readonly log: Log;
  readonly wallClockMs: () => number;
}

export interface RunningJobs {
  /** Starts no further round and waits for those under way, each of which the database bounds. */
  close(): Promise<void>;
}

/** Runs every job now and then at its interval until closed. A round that fails is logged and comes again at its time. */
export function startJobs(parts: JobsParts): RunningJobs {
  const running = new Set<Promise<void>>();
  const timers = parts.jobs.map((job) => {
    let busy = false;
    const round = () => {
      if (busy) return;
      busy = true;
      const started = runJob(parts, job)
        .then((counts) => {
          if (counts !== null && Object.keys(counts).length > 0) parts.log.info({ job: job.name, ...counts }, 'job');
        })
        .catch((err: unknown) => parts.log.warn({ err, job: job.name }, 'a job failed and comes again'))
        .finally(() => {
          busy = false;
          running.delete(started);
        });
      running.add(started);
    };
    round();
    return setInterval(round, job.everyMs).unref();
  });
  return {
    async close() {
      for (const timer of timers) clearInterval(timer);
      await Promise.all(running);
    },
  };
}

/** One round of a job; null where another instance is at it. Answers the counts that are not 0. */
export async function runJob(
  parts: Pick<JobsParts, 'database' | 'wallClockMs'>,
  job: Job,
): Promise<Readonly<Record<string, number>> | null> {
  const work: (() => Promise<void> | void)[] = [];
  const counts = await parts.database.call(async (tx) => {
    work.length = 0;
    const { rows } = await sql<{ leads: boolean }>`
      select pg_try_advisory_xact_lock(hashtextextended(${`job:${job.name}`}, 0)) as leads`.execute(tx);
    if (rows[0]?.leads !== true) return null;
    return job.run({ tx, nowMs: parts.wallClockMs(), afterCommit: (item) => void work.push(item) });
  });
  for (const item of work) await item();
  return counts === null ? null : Object.fromEntries(Object.entries(counts).filter(([, count]) => count > 0));
}
