import { sql } from 'kysely';
import type { Meter, UsageEvent } from '../../kernel/invoke.ts';
import { backoffMs } from '../../lib/backoff.ts';
import { createMinuteCounter } from '../../lib/minute-counter.ts';
import { uuidV7 } from '../../lib/uuid-v7.ts';
import { isRefusedData } from '../../platform/database-errors.ts';
import type { Log } from '../../platform/log.ts';
import type { Database } from '../../platform/postgres.ts';

/**
 * Keeps metered calls in memory for at most one flush interval and writes them in batches. Each row has its id before
 * the insert, so a batch whose outcome is unknown is simply written again. While PostgreSQL is away the events wait,
 * up to a bound at which further metered calls are refused.
 */

/** Events held while they cannot be written; the promise of the contract. */
export const EVENTS_HELD_MAX = 10_000;
/** Rows of one insert: some 0.5 MB and 10 to 50 ms of PostgreSQL, far below the statement timeout on a busy machine. */
const BATCH_ROWS_MAX = 1_000;
/** Rows for refusals that one owner may cause a minute: a client that retries without pause fills no disk. */
const REFUSALS_PER_MINUTE_MAX = 1_000;
const OWNERS_COUNTED_MAX = 10_000;
const REFUSED_BY_RATE = 429;
const REFUSED_BY_QUOTA = 402;
const RETRY = { baseMs: 100, maxMs: 2_000 };

export interface UsageWriter extends Meter {
  /** Writes everything recorded so far. Rejects when the database does not take it; the events are kept. */
  flush(): Promise<void>;
  /** Events not yet in the database. */
  pending(): number;
  /** Stops the timer and writes what is left, within the bound given. Resolves to the number that could not be written. */
  close(deadlineMs: number): Promise<number>;
}

export interface UsageWriterParts {
  readonly database: Database;
  readonly flushIntervalMs: number;
  readonly log: Log;
  readonly observe?: (result: 'written' | 'refused' | 'refusal_not_kept', rows: number) => void;
}

interface Row {
  readonly id: string;
  readonly event: UsageEvent;
}

/** Starts the writer; its timer does not keep the process alive. */
export function createUsageWriter(parts: UsageWriterParts): UsageWriter {
  const mayRecordRefusal = createMinuteCounter({
    perMinuteMax: REFUSALS_PER_MINUTE_MAX,
    subjectsMax: OWNERS_COUNTED_MAX,
  });
  let waiting: Row[] = [];
  let writing = 0;
  let running: Promise<void> | undefined;
  let timer: NodeJS.Timeout | undefined;
  let failures = 0;
  let closed = false;

  function schedule(delayMs: number): void {
    if (closed || timer !== undefined) return;
    timer = setTimeout(() => {
      timer = undefined;
      // The failure is logged and the events are kept; the next try is scheduled by it.
      flush().catch(() => undefined);
    }, delayMs);
    timer.unref();
  }

  /** Writes what is waiting now; what comes in meanwhile is for the next flush, so that a flush under load ends. */
  async function writeWaiting(): Promise<void> {
    for (let left = waiting.length; left > 0; ) {
      const batch = waiting.slice(0, Math.min(left, BATCH_ROWS_MAX));
      waiting = waiting.slice(batch.length);
      left -= batch.length;
      writing = batch.length;
      try {
        await write(batch);
        failures = 0;
      } catch (err) {
        waiting = batch.concat(waiting);
        failures += 1;
        parts.log.error({ err, rows: waiting.length, failures }, 'usage rows could not be written; they are kept');
        throw err;
      } finally {
        writing = 0;
      }
    }
  }

  /** Writes a batch. A row that the database refuses for what it holds is found by halving, so that it stops no other. */
  async function write(batch: readonly Row[]): Promise<void> {
    try {
      await insertRows(parts.database, batch);
      parts.observe?.('written', batch.length);
    } catch (err) {
      if (!isRefusedData(err)) throw err;
      const [only] = batch;
      if (batch.length === 1 && only !== undefined) {
        parts.log.error({ err, row: toColumns(only) }, 'the database refused a usage row; it stands here alone');
        parts.observe?.('refused', 1);
        return;
      }
      const half = batch.length >> 1;
      await write(batch.slice(0, half));
      await write(batch.slice(half));
    }
  }

  function start(): Promise<void> {
    running ??= writeWaiting().finally(() => {
      running = undefined;
      if (waiting.length > 0) schedule(Math.max(parts.flushIntervalMs, failures > 0 ? backoffMs(failures, RETRY) : 0));
    });
    return running;
  }

  /** A flush that finds one under way waits for it and then writes what that one had not yet seen. */
  function flush(): Promise<void> {
    return running === undefined ? start() : running.then(start);
  }

  return {
    hasRoom: () => waiting.length + writing < EVENTS_HELD_MAX,
    pending: () => waiting.length + writing,
    record(event) {
      const refused = event.statusCode === REFUSED_BY_RATE || event.statusCode === REFUSED_BY_QUOTA;
      if (refused && !mayRecordRefusal(event.principal.ownerId, event.createdAtMs)) {
        parts.observe?.('refusal_not_kept', 1);
        return;
      }
      waiting.push({ id: uuidV7(event.createdAtMs), event });
      if (timer === undefined) schedule(parts.flushIntervalMs);
    },
    flush,
    async close(deadlineMs) {
      closed = true;
      clearTimeout(timer);
      let isOver = false;
      const over = Promise.withResolvers<void>();
      const bound = setTimeout(() => {
        isOver = true;
        over.resolve();
      }, deadlineMs);
      const pause = () => new Promise<void>((resolve) => setTimeout(resolve, RETRY.baseMs));
      // A silent server is given up at the deadline, even though the statement under way waits longer.
      while (waiting.length + writing > 0 && !isOver) await Promise.race([flush().catch(pause), over.promise]);
      clearTimeout(bound);
      return waiting.length + writing;
    },
  };
}

/** Only facts that billing and analytics need; nothing a caller typed but the symbol. */
async function insertRows(database: Database, batch: readonly Row[]): Promise<void> {
  await database.call((tx) => sql`select record_usage(${JSON.stringify(batch.map(toColumns))}::json)`.execute(tx));
}

function toColumns({ id, event }: Row) {
  const { principal, operation } = event;
  return {
    id,
    user_id: principal.userId,
    org_id: principal.orgId,
    owner_id: principal.ownerId,
    api_key_id: principal.key?.id ?? null,
    key_secret_id: principal.key?.secretId ?? null,
    operation: operation.name,
    endpoint: operation.route.path,
    method: operation.route.method,
    symbol: event.symbol,
    status_code: event.statusCode,
    response_time_ms: Math.round(event.responseTimeMs),
    error_message: event.errorCode,
    cost: event.cost,
    billable: principal.key?.environment !== 'test',
    request_id: event.requestId,
    request_metadata: principal.service === null ? null : { service: principal.service },
    created_at: new Date(event.createdAtMs).toISOString(),
  };
}
