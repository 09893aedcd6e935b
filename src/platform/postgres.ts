import { AsyncLocalStorage } from 'node:async_hooks';
import { Kysely, PostgresDialect, sql } from 'kysely';
import pg from 'pg';
import type { Connection } from './connection.ts';
import {
  DatabaseUnavailableError,
  endsConnection,
  isConnectionLoss,
  isMissingPartition,
  isSerializationFailure,
  isUnavailable,
  sqlState,
} from './database-errors.ts';
import type { DB } from './database-types.generated.ts';

export { DatabaseUnavailableError, isMissingPartition, sqlState } from './database-errors.ts';

/**
 * The pool every request goes through. Each statement of the service runs inside a transaction that takes on the
 * service role and names its tenant, so row-level security holds whatever the login may do, and behind PgBouncer in
 * transaction mode.
 */
export interface Database {
  /** Read-only transaction as the tenant. Never retried by itself beyond a lost serialization race. */
  read<T>(tenant: Tenant, work: (tx: Transaction) => Promise<T>): Promise<T>;
  /** Read-write transaction as the tenant; run again, whole, after a serialization failure or deadlock. */
  write<T>(tenant: Tenant, work: (tx: Transaction) => Promise<T>): Promise<T>;
  /** Transaction with no tenant: sees no tenant's rows, for the definer functions that cross tenants. */
  call<T>(work: (tx: Transaction) => Promise<T>): Promise<T>;
  /**
   * A definer function called with no tenant and one hash, from begin to commit in a single round trip, because a caller
   * waits for it. The hash becomes part of the statement's text: nothing else may go this way.
   */
  callWithHash<Row>(name: 'find_api_key', hash: Uint8Array): Promise<Row[]>;
  /** Connections open, idle, and callers waiting for one. */
  stats(): { total: number; idle: number; waiting: number; max: number };
  close(): Promise<void>;
}

export type Transaction = Kysely<DB>;

/** Whose rows a transaction sees: the owner's, and the person's own. */
export interface Tenant {
  readonly ownerId: string;
  readonly userId: string | null;
}

export interface DatabaseOptions {
  readonly connection: Connection;
  readonly poolMin: number;
  readonly poolMax: number;
  /** Longest wait for a connection, from the pool or the network. */
  readonly connectionTimeoutMs: number;
  readonly applicationName: string;
  /** Told of every transaction: how long it took, tries included, and whether it failed. Never statements or values. */
  readonly observe?: (event: { ms: number; failed: boolean; attempts: number }) => void;
  readonly onError?: (error: Error) => void;
}

/** Time that a piece of work spent in the database. */
export interface DatabaseTime {
  ms: number;
}

const databaseTime = new AsyncLocalStorage<DatabaseTime>();

/** Runs the work and adds to `time` what its transactions take, waits for a connection and retries included. */
export function measureDatabase<T>(time: DatabaseTime, work: () => T): T {
  return databaseTime.run(time, work);
}

/** A statement of a request is an index look-up or one small write: more than this is a fault, not a slow day. */
const STATEMENT_TIMEOUT_MS = 5_000;
const LOCK_TIMEOUT_MS = 2_000;
const IDLE_IN_TRANSACTION_TIMEOUT_MS = 10_000;
/** Client-side bound for a server that accepts and never answers; above the server's own so that its message wins. */
const QUERY_TIMEOUT_MS = STATEMENT_TIMEOUT_MS + 1_000;
const IDLE_CONNECTION_TIMEOUT_MS = 30_000;
/** Tries of a transaction that lost a serialization race or was chosen in a deadlock. */
const TRANSACTION_ATTEMPTS_MAX = 4;
const RETRY_PAUSE_MS = 10;

/**
 * Opens the pool; connects on first use. Throws nothing at once: an unreachable server shows as
 * DatabaseUnavailableError on use, within `connectionTimeoutMs`.
 */
export function openDatabase(options: DatabaseOptions): Database {
  const pool = new pg.Pool({
    connectionString: options.connection.url,
    ssl: options.connection.ssl,
    min: options.poolMin,
    max: options.poolMax,
    connectionTimeoutMillis: options.connectionTimeoutMs,
    idleTimeoutMillis: IDLE_CONNECTION_TIMEOUT_MS,
    query_timeout: QUERY_TIMEOUT_MS,
    keepAlive: true,
    application_name: options.applicationName,
  });
  // An idle connection that dies with the server emits here; without a listener it would end the process.
  pool.on('error', (error) => options.onError?.(error));
  const kysely = new Kysely<DB>({ dialect: new PostgresDialect({ pool: leasingPool(pool) }) });

  function once<T>(begin: string, work: (tx: Transaction) => Promise<T>): Promise<T> {
    return kysely.connection().execute(async (connection) => {
      try {
        await sql.raw(begin).execute(connection).catch(standbyIsUnavailable);
        const result = await work(connection);
        const { rows } = await sql.raw<{ command: string }>('COMMIT').execute(connection);
        // The server answers ROLLBACK where a statement had failed and the work went on regardless.
        if (rows[0]?.command !== 'COMMIT')
          throw new Error('the transaction was rolled back: a statement in it had failed');
        return result;
      } catch (error) {
        // A connection that cannot roll back is destroyed on release; the first error is the one that matters.
        await sql
          .raw('ROLLBACK')
          .execute(connection)
          .catch(() => undefined);
        throw error;
      }
    });
  }

  async function onceInOneRoundTrip<Row>(name: string, hash: Uint8Array): Promise<Row[]> {
    const lease = await leaseConnection(pool);
    try {
      const call = `SELECT * FROM ${name}('\\x${Buffer.from(hash).toString('hex')}'::bytea)`;
      const text = `${beginning('READ WRITE', null)}; ${call}; COMMIT`;
      const results = await lease.query(text).catch(standbyIsUnavailable);
      // One result a statement: that of the call stands before that of COMMIT.
      return (results as unknown as pg.QueryResult[]).at(-2)?.rows as Row[];
    } catch (error) {
      await lease.query('ROLLBACK').catch(() => undefined);
      throw error;
    } finally {
      lease.release();
    }
  }

  let makingPartitions: Promise<unknown> | undefined;
  /** Makes the months around now, where they are missing; calls at the same time share one run. */
  function makePartitions(): Promise<unknown> {
    makingPartitions ??= once(beginning('READ WRITE', null), (tx) => sql.raw(MAKE_PARTITIONS).execute(tx)).finally(
      () => {
        makingPartitions = undefined;
      },
    );
    return makingPartitions;
  }

  function transaction<T>(mode: Mode, tenant: Tenant | null, work: (tx: Transaction) => Promise<T>): Promise<T> {
    const begin = beginning(mode, tenant);
    return retried(() => once(begin, work));
  }

  async function retried<T>(run: () => Promise<T>): Promise<T> {
    const startedAt = performance.now();
    const finish = (failed: boolean, attempts: number) => {
      const ms = performance.now() - startedAt;
      const time = databaseTime.getStore();
      if (time !== undefined) time.ms += ms;
      options.observe?.({ ms, failed, attempts });
    };
    let madePartitions = false;
    for (let attempt = 1; ; attempt += 1) {
      try {
        const result = await run();
        finish(false, attempt);
        return result;
      } catch (thrown) {
        let error = thrown;
        if (isSerializationFailure(error) && attempt < TRANSACTION_ATTEMPTS_MAX) {
          await new Promise((resolve) => setTimeout(resolve, Math.random() * RETRY_PAUSE_MS * attempt));
          continue;
        }
        if (isMissingPartition(error) && !madePartitions) {
          madePartitions = true;
          try {
            await makePartitions();
            continue;
          } catch (failure) {
            error = failure;
          }
        }
        finish(true, attempt);
        throw isUnavailable(error) && !(error instanceof DatabaseUnavailableError)
          ? new DatabaseUnavailableError(error)
          : error;
      }
    }
  }

  let closing: Promise<void> | undefined;
  return {
    read: (tenant, work) => transaction('READ ONLY', tenant, work),
    write: (tenant, work) => transaction('READ WRITE', tenant, work),
    call: (work) => transaction('READ WRITE', null, work),
    callWithHash: (name, hash) => retried(() => onceInOneRoundTrip(name, hash)),
    stats: () => ({ total: pool.totalCount, idle: pool.idleCount, waiting: pool.waitingCount, max: options.poolMax }),
    close() {
      closing ??= pool.end();
      return closing;
    },
  };
}

type Mode = 'READ ONLY' | 'READ WRITE';

/** Role and timeouts of a transaction, as SQL. LOCAL, so that nothing is left on a connection somebody else uses next. */
const PRELUDE = [
  'SET LOCAL ROLE iora_api',
  `SET LOCAL statement_timeout = ${STATEMENT_TIMEOUT_MS}`,
  `SET LOCAL lock_timeout = ${LOCK_TIMEOUT_MS}`,
  `SET LOCAL idle_in_transaction_session_timeout = ${IDLE_IN_TRANSACTION_TIMEOUT_MS}`,
].join('; ');

/** All that has to be said before the first statement, in one round trip. */
function beginning(mode: Mode, tenant: Tenant | null): string {
  const owner = pg.escapeLiteral(tenant?.ownerId ?? '');
  const user = pg.escapeLiteral(tenant?.userId ?? '');
  const settings = `SELECT set_config('app.owner_id', ${owner}, true), set_config('app.user_id', ${user}, true)`;
  return `BEGIN ${mode}; ${PRELUDE}; ${settings}`;
}

/** The month before (calls answered around midnight), this one and the three that are always kept ready. */
const MAKE_PARTITIONS = `SELECT ensure_month_partitions(4, now() - interval '1 month')`;

/** A standby refuses to begin a transaction that may write: during a failover the caller may come back later. */
function standbyIsUnavailable(error: unknown): never {
  throw sqlState(error) === '0A000' ? new DatabaseUnavailableError(error) : error;
}

/** The pool as Kysely takes it. */
function leasingPool(pool: pg.Pool): pg.Pool {
  return { connect: () => leaseConnection(pool), end: () => pool.end() } as unknown as pg.Pool;
}

/**
 * A connection of the pool, with two differences. One on which a query failed for any reason but an answer of the server
 * is in an unknown state, so it refuses further queries and is destroyed instead of being reused. And one that dies while
 * leased is listened to: its error would otherwise end the process.
 */
async function leaseConnection(pool: pg.Pool) {
  const client = await pool.connect().catch((error: unknown) => {
    // Also where the server answers no: a password or database name that is wrong now may be mended without us.
    throw new DatabaseUnavailableError(error);
  });
  let broken: Error | undefined;
  const onError = (error: Error) => {
    broken ??= new DatabaseUnavailableError(error);
  };
  client.on('error', onError);
  return {
    async query(...args: unknown[]): Promise<pg.QueryResult> {
      if (broken !== undefined) throw broken;
      try {
        return await Reflect.apply(client.query as (...args: unknown[]) => Promise<pg.QueryResult>, client, args);
      } catch (error) {
        if (error instanceof pg.DatabaseError) {
          if (endsConnection(error)) broken = new DatabaseUnavailableError(error);
          throw error;
        }
        broken = isConnectionLoss(error) || !(error instanceof Error) ? new DatabaseUnavailableError(error) : error;
        throw broken;
      }
    },
    release() {
      client.off('error', onError);
      client.release(broken);
    },
  };
}
