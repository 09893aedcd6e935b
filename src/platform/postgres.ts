import { Kysely, PostgresDialect, sql } from 'kysely';
import pg from 'pg';
import type { Connection } from './connection.ts';
import type { DB } from './database-types.generated.ts';

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

/** A statement of a request is an index look-up or one small write: more than this is a fault, not a slow day. */
export const STATEMENT_TIMEOUT_MS = 5_000;
const LOCK_TIMEOUT_MS = 2_000;
const IDLE_IN_TRANSACTION_TIMEOUT_MS = 10_000;
/** Client-side bound for a server that accepts and never answers; above the server's own so that its message wins. */
const QUERY_TIMEOUT_MS = STATEMENT_TIMEOUT_MS + 1_000;
const IDLE_CONNECTION_TIMEOUT_MS = 30_000;
/** Tries of a transaction that lost a serialization race or was chosen in a deadlock. */
const TRANSACTION_ATTEMPTS_MAX = 4;
const RETRY_PAUSE_MS = 10;

/** The database could not be reached or did not answer; the caller may come back later. */
export class DatabaseUnavailableError extends Error {
  constructor(cause: unknown) {
    super('the database cannot be reached or does not answer', { cause });
    this.name = 'DatabaseUnavailableError';
  }
}

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
      await sql.raw(begin).execute(connection);
      try {
        const result = await work(connection);
        await sql.raw('COMMIT').execute(connection);
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

  async function transaction<T>(mode: string, tenant: Tenant | null, work: (tx: Transaction) => Promise<T>) {
    const begin = `BEGIN ${mode}; ${PRELUDE}; ${tenantSettings(tenant)}`;
    const startedAt = performance.now();
    for (let attempt = 1; ; attempt += 1) {
      try {
        const result = await once(begin, work);
        options.observe?.({ ms: performance.now() - startedAt, failed: false, attempts: attempt });
        return result;
      } catch (error) {
        if (isSerializationFailure(error) && attempt < TRANSACTION_ATTEMPTS_MAX) {
          await new Promise((resolve) => setTimeout(resolve, Math.random() * RETRY_PAUSE_MS * attempt));
          continue;
        }
        options.observe?.({ ms: performance.now() - startedAt, failed: true, attempts: attempt });
        throw isUnavailable(error) ? new DatabaseUnavailableError(error) : error;
      }
    }
  }

  return {
    read: (tenant, work) => transaction('READ ONLY', tenant, work),
    write: (tenant, work) => transaction('READ WRITE', tenant, work),
    call: (work) => transaction('READ WRITE', null, work),
    stats: () => ({ total: pool.totalCount, idle: pool.idleCount, waiting: pool.waitingCount, max: options.poolMax }),
    close: () => kysely.destroy(),
  };
}

/** Role and timeouts of a transaction, as SQL. LOCAL, so that nothing is left on a connection somebody else uses next. */
const PRELUDE = [
  'SET LOCAL ROLE iora_api',
  `SET LOCAL statement_timeout = ${STATEMENT_TIMEOUT_MS}`,
  `SET LOCAL lock_timeout = ${LOCK_TIMEOUT_MS}`,
  `SET LOCAL idle_in_transaction_session_timeout = ${IDLE_IN_TRANSACTION_TIMEOUT_MS}`,
].join('; ');

function tenantSettings(tenant: Tenant | null): string {
  const owner = pg.escapeLiteral(tenant?.ownerId ?? '');
  const user = pg.escapeLiteral(tenant?.userId ?? '');
  return `SELECT set_config('app.owner_id', ${owner}, true), set_config('app.user_id', ${user}, true)`;
}

/**
 * The pool as Kysely takes it, with one difference: a connection on which a query failed for any reason but an answer
 * of the server is in an unknown state, so it refuses further queries and is destroyed instead of being reused.
 */
function leasingPool(pool: pg.Pool) {
  return {
    async connect() {
      const client = await pool.connect();
      let broken: Error | undefined;
      return {
        async query(...args: unknown[]) {
          if (broken !== undefined) throw broken;
          try {
            return await Reflect.apply(client.query as (...args: unknown[]) => Promise<never>, client, args);
          } catch (error) {
            if (!(error instanceof pg.DatabaseError))
              broken = error instanceof Error ? error : new Error(String(error));
            throw error;
          }
        },
        release: () => client.release(broken),
      };
    },
    end: () => pool.end(),
  } as unknown as pg.Pool;
}

/** SQLSTATE of a server's answer, else undefined. */
export function sqlState(error: unknown): string | undefined {
  return error instanceof pg.DatabaseError ? error.code : undefined;
}

function isSerializationFailure(error: unknown): boolean {
  const code = sqlState(error);
  return code === '40001' || code === '40P01';
}

/**
 * Server states in which coming back later helps: connection lost (08), too many connections or out of resources (53),
 * cancelled by a timeout or shutdown (57), lock not available (55P03), read-only after a failover (25006).
 */
const UNAVAILABLE_STATES = /^(?:08|53|57)|^55P03$|^25006$/;

function isUnavailable(error: unknown): boolean {
  if (error instanceof pg.DatabaseError) return UNAVAILABLE_STATES.test(error.code ?? '');
  // Everything else that the driver throws is about the connection: refused, reset, timed out, ended.
  if (!(error instanceof Error)) return false;
  return ('code' in error && CONNECTION_CODE.test(String(error.code))) || DRIVER_ERROR.test(error.message);
}

/** Codes of the operating system (ECONNREFUSED) and of TLS (SELF_SIGNED_CERT_IN_CHAIN). */
const CONNECTION_CODE = /^E[A-Z]{3,}$|CERT/;

/** The driver's own messages for a connection that is gone; it gives them no code. */
const DRIVER_ERROR =
  /timeout exceeded when trying to connect|Connection terminated|Query read timeout|Client has encountered a connection error|Cannot use a pool after calling end|not queryable/;
