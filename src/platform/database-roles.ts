// The roles of the database: made by ops/postgres/bootstrap.sql where the login may, else checked; and the passwords of
// those that log in, which reach the server only as SCRAM verifiers, so that no log of statements holds a password.
import { createHash, createHmac, pbkdf2Sync, randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import pg from 'pg';

/** The role that owns the schema; migrations run as it. */
export const ownerRole = 'iora_owner';
/** Roles that serve; a login that is one, or a member of one, is to stay unable to change the schema. */
const servingRoles = ['iora_api', 'iora_worker', 'iora_readonly'];
const serviceRoles = ['iora_migrator', 'iora_maintainer', ...servingRoles];

const bootstrapFile = new URL('../../ops/postgres/bootstrap.sql', import.meta.url);
/** What PostgreSQL itself uses by default (scram_iterations). */
const SCRAM_ITERATIONS = 4096;
const SCRAM_SALT_BYTES = 16;

/** The roles are not as they must be and this login may not change that; the message says who can. */
export class DatabaseRolesError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'DatabaseRolesError';
  }
}

/**
 * Makes the roles and their rights in this database, or checks them where the login of `client` may not make roles.
 * Throws DatabaseRolesError, naming the file to run, when something is missing.
 */
export async function ensureRoles(client: pg.ClientBase): Promise<void> {
  const { rows } = await client.query<{ login: string; database: string; may_create: boolean; serves: boolean }>(
    `SELECT current_user AS login, current_database() AS database, rolsuper OR rolcreaterole AS may_create,
            EXISTS (SELECT FROM pg_roles role
                    WHERE role.rolname = ANY ($1) AND pg_has_role(current_user, role.oid, 'MEMBER')) AS serves
     FROM pg_roles WHERE rolname = current_user`,
    [servingRoles],
  );
  const { login, database, may_create: mayCreate, serves } = only(rows);
  const missing = await missingRights(client);
  if (missing.length === 0 && !mayCreate) return;
  // With a right to migrate, a login that serves would be refused by the next start in production.
  const migrator = serves
    ? 'set DATABASE_MIGRATION_URL to a login that is a member of iora_migrator'
    : `GRANT iora_migrator TO "${login}"`;
  const remedy =
    serves && missing.length === 1 && missing[0] === membershipInOwner
      ? migrator
      : `let a superuser run ops/postgres/bootstrap.sql in database "${database}", then ${migrator}`;
  if (!mayCreate) throw new DatabaseRolesError(`login "${login}" lacks ${missing.join(', ')}: ${remedy}`);
  try {
    await client.query(await readFile(bootstrapFile, 'utf8'));
  } catch (error) {
    if (error instanceof pg.DatabaseError && error.code === '42501') {
      throw new DatabaseRolesError(`login "${login}" may not set up the roles (${error.message}): ${remedy}`, {
        cause: error,
      });
    }
    throw error;
  }
}

/**
 * Lets each role of `logins` (role -> password) log in with its password. Throws DatabaseRolesError for a role that is
 * not one of ours or a password of other than printable ASCII.
 */
export async function setLogins(client: pg.ClientBase, logins: Readonly<Record<string, string>>): Promise<void> {
  for (const [role, password] of Object.entries(logins)) {
    if (!serviceRoles.includes(role)) throw new DatabaseRolesError(`role "${role}" cannot be given a login`);
    await client.query(
      `ALTER ROLE ${pg.escapeIdentifier(role)} LOGIN PASSWORD ${pg.escapeLiteral(scramVerifier(password))}`,
    );
  }
}

/**
 * Returns what PostgreSQL stores for `password` (RFC 5803), made here so that the password itself never travels.
 * Throws DatabaseRolesError unless it is 1 or more characters of printable ASCII: others would need SASLprep (RFC 4013).
 */
export function scramVerifier(password: string, salt: Buffer = randomBytes(SCRAM_SALT_BYTES)): string {
  if (!/^[\x20-\x7e]+$/.test(password)) throw new DatabaseRolesError('a database password must be printable ASCII');
  const salted = pbkdf2Sync(password, salt, SCRAM_ITERATIONS, 32, 'sha256');
  const hmac = (text: string) => createHmac('sha256', salted).update(text).digest();
  const storedKey = createHash('sha256').update(hmac('Client Key')).digest('base64');
  return `SCRAM-SHA-256$${SCRAM_ITERATIONS}:${salt.toString('base64')}$${storedKey}:${hmac('Server Key').toString('base64')}`;
}

const membershipInOwner = `membership in ${ownerRole}`;

async function missingRights(client: pg.ClientBase): Promise<string[]> {
  const { rows } = await client.query<{ rolname: string }>('SELECT rolname FROM pg_roles WHERE rolname = ANY ($1)', [
    [ownerRole, ...serviceRoles],
  ]);
  const found = new Set(rows.map((row) => row.rolname));
  const missing = [ownerRole, ...serviceRoles].filter((role) => !found.has(role)).map((role) => `role ${role}`);
  if (missing.length > 0) return missing;
  const rights = await client.query<{ acts: boolean; creates: boolean }>(
    `SELECT pg_has_role('${ownerRole}', CASE WHEN current_setting('server_version_num')::integer >= 160000 THEN 'SET' ELSE 'MEMBER' END) AS acts,
            has_schema_privilege('${ownerRole}', 'public', 'CREATE') AS creates`,
  );
  const { acts, creates } = only(rights.rows);
  return [...(acts ? [] : [membershipInOwner]), ...(creates ? [] : [`CREATE on schema public for ${ownerRole}`])];
}

function only<T>(rows: readonly T[]): T {
  const [row] = rows;
  if (row === undefined || rows.length !== 1) throw new Error('the server answered a single-row question otherwise');
  return row;
}
