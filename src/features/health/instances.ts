import { hostname } from 'node:os';
import { sql } from 'kysely';
import type { Log } from '../../platform/log.ts';
import type { Database, Transaction } from '../../platform/postgres.ts';

/** The heartbeat by which instances know of each other. */
export interface Instances {
  /** Ids of the instances seen within the last ALIVE_WITHIN_SECONDS. */
  live(tx: Transaction): Promise<readonly string[]>;
  /** Announces this instance and keeps doing so until closed. */
  start(): Promise<void>;
  /** Takes this instance off the list. */
  close(): Promise<void>;
}

const HEARTBEAT_MS = 2_000;
/** Five missed beats: longer than a garbage collection or a database restart, shorter than anybody waits. */
const ALIVE_WITHIN_SECONDS = 10;
/** Rows of instances that never said goodbye are removed after this. */
const FORGET_AFTER_SECONDS = 3_600;

export interface InstancesParts {
  readonly database: Database;
  readonly log: Log;
  readonly id: string;
  readonly version: string;
  /** True when no other instance can be on this database, so that rows of others are of processes that crashed. */
  readonly alone: boolean;
}

/** Builds the heartbeat of the instance with that id. */
export function createInstances(parts: InstancesParts): Instances {
  let timer: NodeJS.Timeout | undefined;
  let beating: Promise<void> | undefined;

  async function beat(): Promise<void> {
    await parts.database.call(async (tx) => {
      const now = sql<Date>`now()`;
      await tx
        .insertInto('instances')
        .values({ id: parts.id, started_at: now, seen_at: now, hostname: hostname(), version: parts.version })
        .onConflict((conflict) => conflict.column('id').doUpdateSet({ seen_at: now }))
        .execute();
      await tx
        .deleteFrom('instances')
        .where('seen_at', '<', sql<Date>`now() - make_interval(secs => ${FORGET_AFTER_SECONDS})`)
        .execute();
    });
  }

  return {
    async live(tx) {
      const rows = await tx
        .selectFrom('instances')
        .where('seen_at', '>', sql<Date>`now() - make_interval(secs => ${ALIVE_WITHIN_SECONDS})`)
        .select('id')
        .execute();
      return rows.map((row) => row.id);
    },
    async start() {
      if (parts.alone) await parts.database.call((tx) => tx.deleteFrom('instances').execute());
      await beat();
      timer = setInterval(() => {
        beating ??= beat()
          .catch((err: unknown) => parts.log.warn({ err }, 'heartbeat failed'))
          .finally(() => {
            beating = undefined;
          });
      }, HEARTBEAT_MS);
      timer.unref();
    },
    async close() {
      clearInterval(timer);
      // A beat still under way would put the row back.
      await beating;
      await parts.database.call((tx) => tx.deleteFrom('instances').where('id', '=', parts.id).execute());
    },
  };
}
