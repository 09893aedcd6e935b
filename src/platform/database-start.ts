import pg from 'pg';
import { backoffMs } from '../lib/backoff.ts';
import type { Connection } from './connection.ts';
import { assertSchemaUsable } from './migrations.ts';

/** What a process asks of the database before it takes traffic. */

/** The database is not there, or is not one this release may serve from; the message is one line with the next step. */
export class DatabaseStartError extends Error {
  constructor(message: string, cause?: unknown) {
    super(message, { cause });
    this.name = 'DatabaseStartError';
  }
}

const ATTEMPT_TIMEOUT_MS = 3_000;
const RETRY = { baseMs: 100, maxMs: 2_000 };

/**
 * Waits until the database answers, at most that long; one attempt is made in any case. Throws DatabaseStartError with
 * host and port, and the driver's reason.
 */
export async function awaitDatabase(connection: Connection, waitMaxMs: number): Promise<void> {
  const deadline = performance.now() + waitMaxMs;
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await connected(connection, async (client) => void (await client.query('SELECT 1')));
    } catch (error) {
      // A wrong password, database name or certificate does not come right by waiting.
      const refused =
        isUnknownAuthority(error) || (error instanceof pg.DatabaseError && !/^(?:57|53)/.test(error.code ?? ''));
      if (refused || performance.now() >= deadline) {
        const { hostname, port } = new URL(connection.url);
        throw new DatabaseStartError(
          `PostgreSQL at ${hostname || 'the local socket'}:${port || 5432} cannot be used: ${connectionProblem(error)}`,
          error,
        );
      }
      const pauseMs = Math.min(backoffMs(attempt, RETRY), Math.max(0, deadline - performance.now()));
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
    }
  }
}

/** What Node says of a certificate whose issuer is not among those it trusts. */
const unknownAuthorityCodes = [
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
];

function isUnknownAuthority(error: unknown): boolean {
  return error instanceof Error && 'code' in error && unknownAuthorityCodes.includes(String(error.code));
}

/** Why a connection failed, in a few words. */
export function connectionProblem(error: unknown): string {
  if (isUnknownAuthority(error)) {
    return 'its certificate is of an authority not known here; set DATABASE_CA_FILE to the certificate of that authority';
  }
  return error instanceof Error && error.message !== '' ? error.message : String((error as { code?: string }).code);
}

/**
 * Refuses a schema this release cannot serve on, and in production a login that may do more than serve: a superuser, one
 * that passes row-level security, or a member of any role but `iora_api`. Throws MigrationError or DatabaseStartError.
 */
export async function assertDatabaseUsable(connection: Connection, options: { production: boolean }): Promise<void> {
  await connected(connection, async (client) => {
    await assertSchemaUsable(client);
    const { rows } = await client.query<LoginPowers>(LOGIN_POWERS);
    const powers = rows[0] ?? { login: 'the login', reason: 'its powers cannot be read', revoke: null };
    if (options.production && powers.reason !== null) {
      throw new DatabaseStartError(
        `the database login "${powers.login}" may do more than serve (${powers.reason}): ${remedy(powers)}`,
      );
    }
  });
}

interface LoginPowers {
  readonly login: string;
  /** What the login may do beyond serving; null when nothing. */
  readonly reason: string | null;
  /** The statements that end its memberships; null when there are none. */
  readonly revoke: string | null;
}

function remedy({ login, reason, revoke }: LoginPowers): string {
  if (login !== 'iora_api') return 'let DATABASE_URL log in as iora_api';
  if (reason?.startsWith('member of ') && revoke !== null) return revoke;
  return 'run ops/postgres/bootstrap.sql as another superuser, which takes that from iora_api';
}

const LOGIN_POWERS = `
  SELECT current_user::text AS login,
         CASE WHEN rolsuper THEN 'superuser'
              WHEN rolbypassrls THEN 'bypasses row-level security'
              WHEN rolcreaterole THEN 'may create roles'
              WHEN rolcreatedb THEN 'may create databases'
              WHEN rolreplication THEN 'may replicate'
              ELSE (SELECT 'member of ' || string_agg(other.rolname, ', ' ORDER BY other.rolname)
                    FROM pg_roles other
                    WHERE other.rolname NOT IN (current_user, 'iora_api') AND pg_has_role(current_user, other.oid, 'MEMBER'))
         END AS reason,
         (SELECT string_agg(format('REVOKE %I FROM %I', granted.rolname, current_user), '; ' ORDER BY granted.rolname)
          FROM pg_auth_members JOIN pg_roles granted ON granted.oid = roleid
          WHERE member = mine.oid) AS revoke
  FROM pg_roles mine WHERE rolname = current_user`;

async function connected<T>(connection: Connection, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({
    connectionString: connection.url,
    ssl: connection.ssl,
    connectionTimeoutMillis: ATTEMPT_TIMEOUT_MS,
    query_timeout: ATTEMPT_TIMEOUT_MS,
    application_name: 'iora-start',
  });
  client.on('error', () => undefined);
  try {
    await client.connect();
    return await work(client);
  } finally {
    await client.end().catch(() => undefined);
  }
}
