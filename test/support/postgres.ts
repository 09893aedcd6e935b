// Databases for tests: real PostgreSQL, migrated once, then cloned per test in about a tenth of a second.
import { createHash, randomUUID } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { startEmbeddedPostgres } from '../../src/platform/embedded-postgres.ts';
import { migrateUp } from '../../src/platform/migrations.ts';

export interface TestDatabase {
  readonly name: string;
  /** Of a superuser: for what the test arranges and inspects. */
  readonly superuserUrl: string;
  /** Of the login `iora_api`, which can do no more than its role. */
  readonly apiUrl: string;
  /** Ends what is still connected and removes the database. */
  drop(): Promise<void>;
}

export interface TestCluster {
  /** Of a superuser, to the database `postgres`. */
  readonly superuserUrl: string;
  /** A migrated database of its own; without `name` under one nobody else has. */
  database(name?: string): Promise<TestDatabase>;
  /** An empty database, for tests of the migrations themselves. */
  emptyDatabase(): Promise<TestDatabase>;
  stop(): Promise<void>;
}

/** SQLSTATE: somebody is still connected. */
const OBJECT_IN_USE = '55006';

/**
 * Starts a PostgreSQL of this test file's own in a temporary folder, or, where IORA_TEST_DATABASE_URL names a superuser of a
 * running cluster (15 to 18), uses that one. There the roles get a login with a password only this URL gives.
 */
export async function testCluster(): Promise<TestCluster> {
  const { superuserUrl, stopServer } = await startServer();
  // The same for every test file on one cluster, for roles are the cluster's.
  const apiPassword = createHash('sha256').update(superuserUrl).digest('hex');
  const open = new Set<string>();
  let template: Promise<string> | undefined;

  async function create(name: string, from?: string): Promise<TestDatabase> {
    await query(
      superuserUrl,
      `CREATE DATABASE ${pg.escapeIdentifier(name)}${from === undefined ? '' : ` TEMPLATE ${from}`}`,
    );
    open.add(name);
    return {
      name,
      superuserUrl: urlOf(superuserUrl, { database: name }),
      apiUrl: urlOf(superuserUrl, { database: name, login: 'iora_api', password: apiPassword }),
      drop: () => drop(name),
    };
  }

  async function drop(name: string): Promise<void> {
    if (!open.delete(name)) return;
    // The server itself waits some seconds for sessions that are just ending; only one left behind is cut off.
    await query(superuserUrl, `DROP DATABASE ${pg.escapeIdentifier(name)}`).catch((error: unknown) => {
      if (!(error instanceof pg.DatabaseError && error.code === OBJECT_IN_USE)) throw error;
      return query(superuserUrl, `DROP DATABASE ${pg.escapeIdentifier(name)} WITH (FORCE)`);
    });
  }

  async function makeTemplate(): Promise<string> {
    const { name, superuserUrl: url } = await create(uniqueName());
    await migrateUp({ url, logins: { iora_api: apiPassword } });
    return name;
  }

  return {
    superuserUrl,
    emptyDatabase: () => create(uniqueName()),
    async database(name = uniqueName()) {
      template ??= makeTemplate();
      return create(name, await template);
    },
    async stop() {
      for (const name of [...open]) await drop(name);
      await stopServer();
    },
  };
}

/** Runs `work` on a connection of its own to `url` and closes it. */
export async function withClient<T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

async function startServer(): Promise<{ superuserUrl: string; stopServer: () => Promise<void> }> {
  const given = process.env['IORA_TEST_DATABASE_URL'];
  if (given !== undefined && given !== '') return { superuserUrl: given, stopServer: async () => {} };
  const dataDir = await mkdtemp(join(tmpdir(), 'iora-test-'));
  const server = await startEmbeddedPostgres({ dataDir });
  return {
    superuserUrl: server.url('postgres', 'postgres'),
    async stopServer() {
      await server.stop();
      await rm(dataDir, { recursive: true, force: true });
    },
  };
}

function query(url: string, text: string): Promise<unknown> {
  return withClient(url, (client) => client.query(text));
}

function urlOf(base: string, change: { database: string; login?: string; password?: string }): string {
  const url = new URL(base);
  url.pathname = `/${change.database}`;
  if (change.login !== undefined) url.username = change.login;
  if (change.password !== undefined) url.password = change.password;
  return url.href;
}

function uniqueName(): string {
  return `iora_test_${randomUUID().replaceAll('-', '')}`;
}
