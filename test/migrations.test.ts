import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import type pg from 'pg';
import { parseConnection } from '../src/platform/connection.ts';
import { scramVerifier } from '../src/platform/database-roles.ts';
import { assertDatabaseUsable } from '../src/platform/database-start.ts';
import { startEmbeddedPostgres } from '../src/platform/embedded-postgres.ts';
import { migrationsDirectory } from '../src/platform/migration-files.ts';
import {
  assertSchemaUsable,
  MigrationError,
  migrateDown,
  migrateUp,
  migrationStatus,
  newMigration,
} from '../src/platform/migrations.ts';
import { type TestCluster, type TestDatabase, testCluster, withClient } from './support/postgres.ts';
import { schemaDump } from './support/schema-dump.ts';
import { fillTables } from './support/tenants.ts';

const POLL_MS = 20;
/** Ten seconds: far beyond the lock timeout of a migration. */
const POLLS_MAX = 500;

let cluster: TestCluster;
let folder: string;
before(async () => {
  cluster = await testCluster();
  folder = await mkdtemp(join(tmpdir(), 'iora-migrations-'));
});
after(async () => {
  await cluster.stop();
  await rm(folder, { recursive: true, force: true });
});

/** A copy of the migrations that a test may change. */
async function ownMigrations(): Promise<string> {
  const directory = join(folder, randomUUID());
  await cp(migrationsDirectory, directory, { recursive: true });
  return directory;
}

function addMigration(directory: string, name: string, up: string, down: string): Promise<void> {
  return writeFile(
    join(directory, `${name}.sql`),
    `-- oldest-release: 0.1.0\n-- Up Migration\n${up}\n-- Down Migration\n${down}\n`,
  );
}

function migrationError(pattern: RegExp) {
  return (error: unknown) => {
    assert.ok(error instanceof MigrationError, String(error));
    assert.match(error.message, pattern);
    return true;
  };
}

async function until(condition: () => Promise<boolean>): Promise<void> {
  for (let poll = 0; !(await condition()); poll += 1) {
    assert.ok(poll < POLLS_MAX, 'what is waited for happens');
    await delay(POLL_MS);
  }
}

async function tableCounts(client: pg.ClientBase): Promise<Map<string, number>> {
  const { rows } = await client.query<{ name: string }>(
    `SELECT relname AS name FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition`,
  );
  const counts = new Map<string, number>();
  for (const { name } of rows) {
    const { rows: found } = await client.query<{ n: number }>(`SELECT count(*)::integer AS n FROM ${name}`);
    counts.set(name, found[0]?.n ?? 0);
  }
  return counts;
}

// First, so that on a fresh cluster the processes also race for the roles, which belong to it and not to a database.
test('three processes at once on one database and one on another: one migrates each, all succeed', async () => {
  const [shared, other] = [await cluster.emptyDatabase(), await cluster.emptyDatabase()];
  const code = `import { migrateUp } from ${JSON.stringify(new URL('../src/platform/migrations.ts', import.meta.url).href)};
    process.stdout.write(JSON.stringify((await migrateUp({ url: process.env.TARGET_URL, logins: { iora_worker: 'made-for-this-test' } })).applied));`;
  const migrate = async (database: TestDatabase) => {
    const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', code], {
      env: { ...process.env, TARGET_URL: database.superuserUrl },
    });
    return JSON.parse(stdout) as string[];
  };
  const applied = await Promise.all([shared, shared, shared, other].map(migrate));
  const { applied: recorded } = await migrationStatus({ url: shared.superuserUrl });
  const all = recorded.map((row) => row.name);
  assert.ok(all.length >= 11);
  assert.deepEqual(
    applied.slice(0, 3).filter((names) => names.length > 0),
    [all],
  );
  assert.deepEqual(applied[3], all);
});

test('up, down and up leave the same schema, step by step and whole', async () => {
  const { superuserUrl: url } = await cluster.emptyDatabase();
  const files = (await migrationStatus({ url })).pending;
  await withClient(url, async (client) => {
    const dumps: string[][] = [];
    for (const to of files) {
      assert.deepEqual(await migrateUp({ url }, { to }), { applied: [to] });
      dumps.push(await schemaDump(client));
    }
    assert.ok((dumps.at(-1)?.length ?? 0) > 500, 'the dump sees the schema');
    for (const name of files.toReversed()) {
      assert.deepEqual(await schemaDump(client), dumps.pop(), `the schema after ${name}, on the way down`);
      assert.deepEqual(await migrateDown({ url }), { reverted: [name] });
    }
    const { rows } = await client.query(
      `SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v')`,
    );
    assert.deepEqual(rows, [{ relname: 'schema_migrations' }]);

    await migrateUp({ url });
    const first = await schemaDump(client);
    assert.deepEqual(await migrateDown({ url }, { count: files.length }), { reverted: files.toReversed() });
    await migrateUp({ url });
    assert.deepEqual(await schemaDump(client), first);
  });
});

test('at every version the newest migration goes down and up with rows in the other tables', async () => {
  const { superuserUrl: url } = await cluster.emptyDatabase();
  await withClient(url, async (client) => {
    for (const to of (await migrationStatus({ url })).pending) {
      await migrateUp({ url }, { to });
      await fillTables(client);
      const [schema, rows] = [await schemaDump(client), await tableCounts(client)];
      for (const [table, count] of rows) assert.ok(count > 0, `${table} holds rows at ${to}`);
      await migrateDown({ url });
      for (const [table, count] of await tableCounts(client)) {
        if (table !== 'schema_migrations')
          assert.equal(count, rows.get(table), `${table} keeps its rows when ${to} goes`);
      }
      await migrateUp({ url }, { to });
      assert.deepEqual(await schemaDump(client), schema);
      for (const [table, count] of await tableCounts(client)) {
        assert.ok(count === rows.get(table) || count === 0 || table === 'tiers', `${table} keeps its rows or is new`);
      }
    }
  });
});

test('an applied migration that was edited is refused, by name', async () => {
  const { superuserUrl: url } = await cluster.emptyDatabase();
  const directory = await ownMigrations();
  await migrateUp({ url, directory });
  const file = join(directory, '003_create_api_keys.sql');
  const text = await readFile(file, 'utf8');
  await writeFile(file, text.replaceAll('\n', '\r\n'));
  assert.deepEqual((await migrationStatus({ url, directory })).edited, [], 'line ends are no edit');
  await writeFile(file, `${text}-- one more line\n`);
  assert.deepEqual((await migrationStatus({ url, directory })).edited, ['003_create_api_keys']);
  await assert.rejects(migrateUp({ url, directory }), migrationError(/^003_create_api_keys was edited/));
  await assert.rejects(migrateDown({ url, directory }), migrationError(/^003_create_api_keys was edited/));
});

test('a server refuses a database without schema, with migrations pending, or too new for it, and no other', async () => {
  const database = await cluster.emptyDatabase();
  const url = database.superuserUrl;
  const newest = (await migrationStatus({ url })).pending.at(-1) ?? '';
  await withClient(url, (client) =>
    assert.rejects(assertSchemaUsable(client), migrationError(/no schema yet: run `iora migrate up`/)),
  );
  await migrateUp({ url });
  await migrateDown({ url });
  const asService = async (work: (client: pg.Client) => Promise<void>) =>
    withClient(url, async (client) => {
      await client.query('SET ROLE iora_api');
      await work(client);
    });
  await asService((client) =>
    assert.rejects(assertSchemaUsable(client), migrationError(new RegExp(`lacks 1 .*${newest}.*iora migrate up`))),
  );
  await migrateUp({ url });
  await asService((client) => assertSchemaUsable(client));

  const later = (name: string, oldestRelease: string) =>
    withClient(url, (client) =>
      client.query(
        `INSERT INTO schema_migrations (name, run_on, sha256, oldest_release, applied_by) VALUES ($1, now(), 'x', $2, '99.0.0')`,
        [name, oldestRelease],
      ),
    );
  await later('990_expand', '0.1.0');
  await asService((client) => assertSchemaUsable(client));
  assert.deepEqual(await migrateUp({ url }), { applied: [] });
  await assert.rejects(migrateDown({ url }), migrationError(/990_expand came with another release/));
  await later('991_contract', '0.1.10');
  await asService((client) =>
    assert.rejects(assertSchemaUsable(client), migrationError(/991_contract, which needs IORA 0\.1\.10/)),
  );
  await assert.rejects(migrateUp({ url }), migrationError(/991_contract/));
  assert.deepEqual((await migrationStatus({ url })).unknown, ['990_expand', '991_contract']);
});

test('a migration gives up a lock it does not get, and comes again', async () => {
  const { superuserUrl: url } = await cluster.database();
  const directory = await ownMigrations();
  await addMigration(
    directory,
    '900_add_column',
    'ALTER TABLE users ADD COLUMN tried text;',
    'ALTER TABLE users DROP COLUMN tried;',
  );
  await withClient(url, (holder) =>
    withClient(url, async (watcher) => {
      const isWaiting = async () =>
        (await watcher.query(`SELECT FROM pg_locks WHERE NOT granted AND relation = 'users'::regclass`)).rows.length >
        0;
      await holder.query('BEGIN');
      await holder.query('SELECT count(*) FROM users');
      const migrating = migrateUp({ url, directory });
      await until(isWaiting);
      await until(async () => !(await isWaiting())); // it gave up, for the lock is still held
      await watcher.query('SELECT count(*) FROM users');
      await holder.query('COMMIT');
      assert.deepEqual(await migrating, { applied: ['900_add_column'] });
    }),
  );
});

test('a migration that fails leaves nothing of itself; those before it stay', async () => {
  const { superuserUrl: url } = await cluster.database();
  const directory = await ownMigrations();
  await addMigration(directory, '900_good', 'CREATE TABLE good (id integer);', 'DROP TABLE good;');
  await addMigration(directory, '901_bad', 'CREATE TABLE half (id integer);\nSELECT 1 / 0;', 'DROP TABLE half;');
  await assert.rejects(migrateUp({ url, directory }), migrationError(/rolled back: division by zero/));
  assert.deepEqual((await migrationStatus({ url, directory })).pending, ['901_bad']);
  await addMigration(directory, '901_bad', 'CREATE TABLE half (id integer);', 'DROP TABLE half;');
  assert.deepEqual(await migrateUp({ url, directory }), { applied: ['901_bad'] });
  await addMigration(directory, '500_late', 'SELECT 1;', 'SELECT 1;');
  await assert.rejects(
    migrateUp({ url, directory }),
    migrationError(/500_late is preceding already run migration 900_good/),
  );
});

test('a dry run shows the SQL and changes nothing', async () => {
  const { superuserUrl: url } = await cluster.emptyDatabase();
  const lines: string[] = [];
  assert.deepEqual(
    await migrateUp({ url, log: (line) => lines.push(line) }, { dryRun: true, to: '001_create_users' }),
    { applied: [] },
  );
  assert.equal(lines.length, 1);
  assert.match(lines[0] ?? '', /^-- 001_create_users\n[\s\S]*CREATE TABLE users/);
  assert.deepEqual((await migrationStatus({ url })).applied, []);
});

test('a new migration gets the next number and a skeleton that is accepted', async () => {
  const { superuserUrl: url } = await cluster.database();
  const directory = await ownMigrations();
  const path = await newMigration('add_things', directory);
  const name = basename(path, '.sql');
  assert.match(name, /^\d{3}_add_things$/);
  assert.deepEqual(await migrateUp({ url, directory }), { applied: [name] });
  assert.deepEqual(await migrateDown({ url, directory }), { reverted: [name] });
  for (const bad of ['', 'Add', '../x', 'a b', '1_x'])
    await assert.rejects(newMigration(bad, directory), migrationError(/cannot name a migration/));
  for (const [file, text] of [
    ['notes.txt', ''],
    ['950_no_down.sql', '-- oldest-release: 0.1.0\n-- Up Migration\nSELECT 1;\n'],
    ['950_no_release.sql', '-- Up Migration\nSELECT 1;\n-- Down Migration\nSELECT 1;\n'],
    ['950_turned.sql', '-- oldest-release: 0.1.0\n-- Down Migration\nSELECT 1;\n-- Up Migration\nSELECT 1;\n'],
  ] as const) {
    await writeFile(join(directory, file), text);
    await assert.rejects(migrateUp({ url, directory }), migrationError(new RegExp(file.replace('.', '\\.'))));
    await rm(join(directory, file));
  }
});

test('a database that cannot be reached is one clear line without the password', async () => {
  await assert.rejects(migrateUp({ url: 'postgres://someone:hidden-word@127.0.0.1:1/iora' }), (error: unknown) => {
    assert.ok(error instanceof MigrationError);
    assert.match(error.message, /^[^\n]*ECONNREFUSED[^\n]*$/);
    assert.doesNotMatch(error.message, /hidden-word/);
    return true;
  });
});

test('a database that lets everybody create objects, as before PostgreSQL 15, no longer does', async () => {
  const { superuserUrl: url } = await cluster.emptyDatabase();
  await withClient(url, async (client) => {
    await client.query('GRANT CREATE ON SCHEMA public TO PUBLIC');
    await migrateUp({ url });
    const { rows } = await client.query(
      `SELECT has_schema_privilege('iora_api', 'public', 'CREATE') AS api, has_schema_privilege('iora_owner', 'public', 'CREATE') AS owner`,
    );
    assert.deepEqual(rows, [{ api: false, owner: true }]);
  });
});

test('a login that may not make roles is told who can, and that advice works', async () => {
  const database = await cluster.emptyDatabase();
  const login = `iora_test_${randomUUID().slice(0, 8)}`;
  const url = new URL(database.superuserUrl);
  url.username = login;
  url.password = 'made-for-this-test';
  await migrateUp({ url: database.superuserUrl }, { to: '001_create_users' });
  await withClient(database.superuserUrl, async (client) => {
    await client.query(`CREATE ROLE ${login} LOGIN PASSWORD 'made-for-this-test'`);
    await assert.rejects(
      migrateUp({ url: url.href }),
      migrationError(
        new RegExp(
          `^login "${login}" lacks membership in iora_owner: .*ops/postgres/bootstrap\\.sql.*GRANT iora_migrator TO "${login}"$`,
        ),
      ),
    );
    await client.query(`GRANT iora_migrator TO ${login}`);
    assert.ok((await migrateUp({ url: url.href })).applied.length >= 10);
    await client.query(`DROP ROLE ${login}`);
  });
});

test('a login that serves is never told to take on the migrator, which would end its serving', async () => {
  // A cluster of its own, for what roles hold is the same in all its databases.
  const server = await startEmbeddedPostgres({ dataDir: join(folder, 'serving-login') });
  try {
    const [superuser, api] = [server.url('postgres'), server.url('iora_api')];
    await migrateUp({ url: superuser, logins: { iora_api: server.password('iora_api') } });
    await assert.rejects(
      migrateUp({ url: api }),
      migrationError(
        /^login "iora_api" lacks membership in iora_owner: set DATABASE_MIGRATION_URL to a login that is a member of iora_migrator$/,
      ),
    );
    const start = (url: string) => assertDatabaseUsable(parseConnection(url), { production: true });
    await start(api);
    await assert.rejects(start(superuser), { message: /\(superuser\): let DATABASE_URL log in as iora_api$/ });
    await withClient(superuser, async (client) => {
      await client.query('GRANT iora_migrator TO iora_api');
      await assert.rejects(start(api), {
        name: 'DatabaseStartError',
        message:
          'the database login "iora_api" may do more than serve (member of iora_migrator, iora_owner): REVOKE iora_migrator FROM iora_api',
      });
      await client.query('REVOKE iora_migrator FROM iora_api');
      await start(api);
      await client.query('ALTER ROLE iora_api CREATEDB');
      await assert.rejects(start(api), { message: /\(may create databases\): run ops\/postgres\/bootstrap\.sql/ });
      await migrateUp({ url: superuser });
      await start(api);
    });
  } finally {
    await server.stop();
  }
});

test('a login that may make roles and owns its database sets everything up without a superuser', async () => {
  // A cluster of its own, because the roles must not be there yet.
  const dataDir = join(folder, 'fresh-cluster');
  const server = await startEmbeddedPostgres({ dataDir });
  try {
    await withClient(server.url('postgres', 'postgres'), async (client) => {
      await client.query(`CREATE ROLE managed LOGIN CREATEROLE PASSWORD '${server.password('managed')}'`);
      await client.query('CREATE DATABASE managed OWNER managed');
    });
    const url = server.url('managed', 'managed');
    const { applied } = await migrateUp({ url, logins: { iora_api: server.password('iora_api') } });
    assert.ok(applied.length >= 11);
    assert.deepEqual(await migrateUp({ url }), { applied: [] });
    await withClient(url, async (client) => {
      for (const role of ['iora_api', 'iora_worker', 'iora_migrator', 'iora_owner'])
        await client.query(`SET ROLE ${role}`);
    });
    await withClient(server.url('iora_api', 'managed'), (client) => assertSchemaUsable(client));
  } finally {
    await server.stop();
  }
});

test('passwords reach the server only as the verifier it would have made itself', async () => {
  const role = `iora_test_${randomUUID().slice(0, 8)}`;
  const password = `it's "quoted" \\ and long enough`;
  await withClient(cluster.superuserUrl, async (client) => {
    await client.query(`SET password_encryption = 'scram-sha-256'`);
    await client.query(`CREATE ROLE ${role} PASSWORD ${client.escapeLiteral(password)}`);
    const { rows } = await client.query<{ rolpassword: string }>(
      'SELECT rolpassword FROM pg_authid WHERE rolname = $1',
      [role],
    );
    await client.query(`DROP ROLE ${role}`);
    const made = rows[0]?.rolpassword ?? '';
    assert.equal(scramVerifier(password, Buffer.from(made.split(/[:$]/)[2] ?? '', 'base64')), made);
  });
  assert.throws(() => scramVerifier('pässword'), /printable ASCII/);
});
