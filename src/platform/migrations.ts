// Brings a database to the schema of this release and back, over node-pg-migrate: one transaction a migration, one process
// at a time, waits for locks bounded, and migrations that were applied never edited.
import { PG_MIGRATE_LOCK_ID, runner } from 'node-pg-migrate';
import pg from 'pg';
import { backoffMs } from '../lib/backoff.ts';
import { DatabaseRolesError, ensureRoles, ownerRole, setLogins } from './database-roles.ts';
import { MigrationError, type MigrationFile, migrationsDirectory, readMigrations, release } from './migration-files.ts';

export { MigrationError, MigrationNameError, newMigration } from './migration-files.ts';

export interface MigrationTarget {
  /** Connection string of a login that may act as iora_owner; a direct one, not through a transaction pooler. */
  readonly url: string;
  readonly ssl?: pg.ClientConfig['ssl'] | undefined;
  /** Roles that shall log in, with their passwords. Needs a login that may alter roles. */
  readonly logins?: Readonly<Record<string, string>> | undefined;
  /** Hears a line for each migration that starts, and the SQL where one fails. */
  readonly log?: ((line: string) => void) | undefined;
  /** Folder of the migrations; the release's own unless a test says otherwise. */
  readonly directory?: string | undefined;
}

export interface MigrationStatus {
  readonly applied: readonly { readonly name: string; readonly appliedAt: Date }[];
  readonly pending: readonly string[];
  /** Applied, and the file is no longer what was applied. */
  readonly edited: readonly string[];
  /** Applied by another release, and no file of this one. */
  readonly unknown: readonly string[];
}

interface AppliedMigration {
  readonly name: string;
  readonly run_on: Date;
  readonly sha256: string;
  readonly oldest_release: string;
}

const CONNECTION_TIMEOUT_MS = 10_000;
/** A migration that waits for a lock makes everybody behind it wait too: it gives up soon and comes again. */
const LOCK_TIMEOUT_MS = 2_000;
const LOCK_RETRIES = { triesMax: 10, baseMs: 200, maxMs: 5_000 };
/** SQLSTATEs: a lock was not free in time, or two sessions waited in a circle. */
const lockCodes = ['55P03', '40P01'];
/** Roles belong to the cluster: another database's bootstrap may run into ours. Each try finds more of it done. */
const ROLE_RETRIES = { triesMax: 10, baseMs: 20, maxMs: 500 };
/** SQLSTATEs of two sessions changing one row of a shared catalogue: role exists, row exists, "tuple concurrently updated". */
const roleRaceCodes = ['42710', '23505', 'XX000'];
/** Another process migrates at most this long before we say so instead of waiting on. */
const TURN_WAIT_MAX_MS = 120_000;
const TURN_POLL_MS = 100;

/**
 * Makes the roles, then applies what is pending, up to and including `to`. Safe when several processes do it at once: one
 * applies, the others wait and find nothing to do. With `dryRun` only writes the SQL to the log. Throws MigrationError.
 */
export async function migrateUp(
  target: MigrationTarget,
  options: { readonly to?: string | undefined; readonly dryRun?: boolean | undefined } = {},
): Promise<{ applied: string[] }> {
  const files = await readMigrations(target.directory ?? migrationsDirectory);
  const end = options.to === undefined ? files.length : files.findIndex((file) => file.name === options.to) + 1;
  if (end === 0 && options.to !== undefined) throw new MigrationError(`there is no migration "${options.to}"`);
  const pendingOf = (status: MigrationStatus) =>
    files.slice(0, end).filter((file) => status.pending.includes(file.name));
  if (options.dryRun === true) {
    for (const file of pendingOf(await migrationStatus(target))) target.log?.(`-- ${file.name}\n${file.up}`);
    return { applied: [] };
  }
  return asOwner(target, async (client) => {
    await client.query(migrationsTable);
    const before = await readApplied(client);
    refuseTooNew(files, before);
    const status = compare(files, before);
    refuseEdited(status);
    const pending = pendingOf(status);
    await run(client, target, files, 'up', async () => pendingOf(compare(files, await readApplied(client))).length);
    return { applied: pending.map((file) => file.name) };
  });
}

/** Takes back the newest `count` migrations (default 1), newest first. Throws MigrationError. */
export async function migrateDown(
  target: MigrationTarget,
  options: { readonly count?: number | undefined } = {},
): Promise<{ reverted: string[] }> {
  const count = options.count ?? 1;
  if (!Number.isInteger(count) || count < 1)
    throw new MigrationError('the number of migrations to take back must be a whole number from 1');
  const files = await readMigrations(target.directory ?? migrationsDirectory);
  return asOwner(target, async (client) => {
    const before = await readApplied(client);
    const status = compare(files, before);
    if (status.unknown.length > 0) {
      throw new MigrationError(
        `${status.unknown.join(', ')} came with another release: take it back with that release`,
      );
    }
    refuseEdited(status);
    const reverted = before.slice(-count).map((row) => row.name);
    const kept = before.length - reverted.length;
    await run(client, target, files, 'down', async () => (await readApplied(client)).length - kept);
    return { reverted: reverted.reverse() };
  });
}

/** Returns what is applied and what is not. Changes nothing. Throws MigrationError when the database cannot be asked. */
export async function migrationStatus(target: MigrationTarget): Promise<MigrationStatus> {
  const files = await readMigrations(target.directory ?? migrationsDirectory);
  return connected(target, async (client) => compare(files, await readApplied(client)));
}

/**
 * For the start of a server: resolves when this release can serve on the schema that `client` sees. Throws MigrationError
 * when the schema is missing, has migrations pending, or is too new for this release.
 */
export async function assertSchemaUsable(client: pg.ClientBase): Promise<void> {
  const files = await readMigrations(migrationsDirectory);
  const applied = await readApplied(client);
  refuseTooNew(files, applied);
  const { pending } = compare(files, applied);
  if (applied.length === 0) throw new MigrationError('the database has no schema yet: run `iora migrate up`');
  if (pending.length > 0) {
    throw new MigrationError(
      `the database lacks ${pending.length} of the migrations, ${pending[0]} first: run \`iora migrate up\``,
    );
  }
}

/**
 * node-pg-migrate inserts name and time. The other columns it knows nothing of: their defaults read settings that each
 * migration makes first, so they are written in the same transaction and cannot be forgotten.
 */
const migrationsTable = `
  CREATE TABLE IF NOT EXISTS public.schema_migrations (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    run_on timestamptz NOT NULL,
    sha256 text NOT NULL DEFAULT current_setting('iora.migration_sha256'),
    oldest_release text NOT NULL DEFAULT current_setting('iora.migration_oldest_release'),
    applied_by text NOT NULL DEFAULT current_setting('iora.migration_applied_by')
  );
  GRANT SELECT ON public.schema_migrations TO iora_api, iora_worker`;

async function readApplied(client: pg.ClientBase): Promise<AppliedMigration[]> {
  const found = await client.query<{ found: boolean }>(
    `SELECT to_regclass('public.schema_migrations') IS NOT NULL AS found`,
  );
  if (found.rows[0]?.found !== true) return [];
  const { rows } = await client.query<AppliedMigration>(
    'SELECT name, run_on, sha256, oldest_release FROM public.schema_migrations ORDER BY id',
  );
  return rows;
}

function compare(files: readonly MigrationFile[], applied: readonly AppliedMigration[]): MigrationStatus {
  const fileOf = new Map(files.map((file) => [file.name, file]));
  const done = new Set(applied.map((row) => row.name));
  return {
    applied: applied.map((row) => ({ name: row.name, appliedAt: row.run_on })),
    pending: files.filter((file) => !done.has(file.name)).map((file) => file.name),
    edited: applied.filter((row) => (fileOf.get(row.name)?.sha256 ?? row.sha256) !== row.sha256).map((row) => row.name),
    unknown: applied.filter((row) => !fileOf.has(row.name)).map((row) => row.name),
  };
}

function refuseEdited(status: MigrationStatus): void {
  if (status.edited.length === 0) return;
  throw new MigrationError(
    `${status.edited.join(', ')} was edited after it was applied: restore the file and make the change a new migration (\`iora migrate new\`)`,
  );
}

function refuseTooNew(files: readonly MigrationFile[], applied: readonly AppliedMigration[]): void {
  const known = new Set(files.map((file) => file.name));
  const tooNew = applied.findLast((row) => !known.has(row.name) && isOlder(release, row.oldest_release));
  if (tooNew === undefined) return;
  throw new MigrationError(
    `the database has ${tooNew.name}, which needs IORA ${tooNew.oldest_release} or newer, and this is ${release}: start that release, or take the migration back with it`,
  );
}

function isOlder(version: string, than: string): boolean {
  const [a = [], b = []] = [version, than].map((text) => text.split('.').map((part) => Number.parseInt(part, 10)));
  const index = [0, 1, 2].find((i) => a[i] !== b[i]);
  return index !== undefined && (a[index] ?? 0) < (b[index] ?? 0);
}

/** Runs node-pg-migrate for what `remaining` says is to do; when a lock was not free, again, for what is then left. */
async function run(
  client: pg.Client,
  target: MigrationTarget,
  files: readonly MigrationFile[],
  direction: 'up' | 'down',
  remaining: () => Promise<number>,
): Promise<void> {
  let failed = '';
  const logger = {
    info: (line: string) => {
      const name = /^### MIGRATION (\S+) /.exec(line)?.[1];
      if (name !== undefined) target.log?.(`${direction} ${name}`);
    },
    warn: (line: string) => target.log?.(line),
    error: (line: string) => {
      failed = line;
    },
  };
  try {
    await withRetries(lockCodes, LOCK_RETRIES, async () => {
      await client.query('ROLLBACK'); // a migration that failed leaves its transaction open
      const count = await remaining();
      if (count === 0) return;
      await runner({
        dbClient: client,
        dir: target.directory ?? migrationsDirectory,
        direction,
        count,
        migrationsTable: 'schema_migrations',
        schema: 'public',
        singleTransaction: false,
        noLock: true, // ours is held
        logger,
        migrationLoaderStrategies: [
          { extensions: ['.sql'], loader: async (paths) => paths.map((path) => migrationUnit(files, path)) },
        ],
      });
    });
  } catch (error) {
    if (failed !== '') target.log?.(failed);
    throw new MigrationError(
      `migrating ${direction} stopped, the failing migration is rolled back: ${reasonOf(error)}`,
      { cause: error },
    );
  }
}

function migrationUnit(files: readonly MigrationFile[], path: string) {
  const file = files.find((candidate) => candidate.path === path);
  if (file === undefined) throw new MigrationError(`${path} appeared while migrations were running: run again`);
  const settings = [
    ['iora.migration_sha256', file.sha256],
    ['iora.migration_oldest_release', file.oldestRelease],
    ['iora.migration_applied_by', release],
  ] as const;
  const bookkeeping = settings
    .map(([name, value]) => `set_config('${name}', ${pg.escapeLiteral(value)}, true)`)
    .join(', ');
  return {
    id: path,
    filePaths: [path],
    actions: {
      up: (pgm: { sql(text: string): void }) => pgm.sql(`SELECT ${bookkeeping};\n${file.up}`),
      down: (pgm: { sql(text: string): void }) => pgm.sql(file.down),
    },
  };
}

/** Runs `work` as the owner of the schema, roles and logins in place, while no other process migrates this database. */
async function asOwner<T>(target: MigrationTarget, work: (client: pg.Client) => Promise<T>): Promise<T> {
  return connected(target, async (client) => {
    await client.query(`SET lock_timeout = ${LOCK_TIMEOUT_MS}`);
    await waitForTurn(client);
    await withRetries(roleRaceCodes, ROLE_RETRIES, () => ensureRoles(client));
    await withRetries(roleRaceCodes, ROLE_RETRIES, () => setLogins(client, target.logins ?? {}));
    await client.query(`SET ROLE ${ownerRole}`);
    return work(client);
  });
}

/** The lock is node-pg-migrate's own, so that it and we never run at once either. It ends with the session. */
async function waitForTurn(client: pg.Client): Promise<void> {
  const endsAt = performance.now() + TURN_WAIT_MAX_MS;
  for (;;) {
    const { rows } = await client.query<{ taken: boolean }>(
      `SELECT pg_try_advisory_lock(${PG_MIGRATE_LOCK_ID}) AS taken`,
    );
    if (rows[0]?.taken === true) return;
    if (performance.now() > endsAt) {
      throw new MigrationError(
        'another process is migrating this database and does not finish: look for "iora migrate" in pg_stat_activity',
      );
    }
    await new Promise((resolve) => setTimeout(resolve, TURN_POLL_MS));
  }
}

async function connected<T>(target: MigrationTarget, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({
    connectionString: target.url,
    ...(target.ssl === undefined ? {} : { ssl: target.ssl }),
    connectionTimeoutMillis: CONNECTION_TIMEOUT_MS,
    application_name: 'iora migrate',
  });
  // Without a listener a server that goes away would end the process; the query under way rejects by itself.
  client.on('error', () => undefined);
  try {
    await client.connect();
    return await work(client);
  } catch (error) {
    if (error instanceof MigrationError) throw error;
    if (error instanceof DatabaseRolesError) throw new MigrationError(error.message, { cause: error });
    throw new MigrationError(`migrations could not reach or read the database: ${reasonOf(error)}`, { cause: error });
  } finally {
    await client.end();
  }
}

async function withRetries<T>(
  codes: readonly string[],
  { triesMax, ...bounds }: { triesMax: number; baseMs: number; maxMs: number },
  work: () => Promise<T>,
): Promise<T> {
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await work();
    } catch (error) {
      const isPassing = error instanceof pg.DatabaseError && codes.includes(error.code ?? '');
      if (!isPassing || attempt + 1 >= triesMax) throw error;
      await new Promise((resolve) => setTimeout(resolve, backoffMs(attempt, bounds)));
    }
  }
}

function reasonOf(error: unknown): string {
  // Several addresses refused (localhost as IPv4 and IPv6) come as one error with no message of its own.
  const first: unknown = error instanceof AggregateError ? error.errors[0] : error;
  return first instanceof Error ? first.message : String(first);
}
