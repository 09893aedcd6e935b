// What becomes of the pool when the server dies, falls silent or hangs up: on a server of this file's own, since it is killed.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { sql } from 'kysely';
import { until } from '../../test/support/application.ts';
import { withClient } from '../../test/support/postgres.ts';
import { startTcpProxy, type TcpProxy, throughProxy } from '../../test/support/tcp-proxy.ts';
import { parseConnection } from './connection.ts';
import { awaitDatabase, DatabaseStartError } from './database-start.ts';
import { type EmbeddedPostgres, startEmbeddedPostgres } from './embedded-postgres.ts';
import { migrateUp } from './migrations.ts';
import { type Database, DatabaseUnavailableError, openDatabase } from './postgres.ts';

let dataDir: string;
let server: EmbeddedPostgres;
let apiUrl: string;
before(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'iora-test-'));
  server = await startEmbeddedPostgres({ dataDir });
  const password = randomBytes(16).toString('hex');
  await migrateUp({ url: server.url('postgres'), logins: { iora_api: password } });
  const url = new URL(server.url('postgres'));
  url.username = 'iora_api';
  url.password = password;
  apiUrl = url.href;
});
after(async () => {
  await server.stop();
  await rm(dataDir, { recursive: true, force: true });
});

const lost: Error[] = [];
const open = (url: string): Database =>
  openDatabase({
    connection: parseConnection(url),
    poolMin: 0,
    poolMax: 5,
    connectionTimeoutMs: 3_000,
    applicationName: 'outage test',
    onError: (error) => lost.push(error),
  });

const one = async (database: Database) =>
  (await database.call((tx) => sql<{ one: number }>`select 1 as one`.execute(tx))).rows[0]?.one;
const answers = (database: Database) =>
  one(database).then(
    (value) => value === 1,
    () => false,
  );

/** Fills the pool with that many connections and leaves them idle. */
async function warm(database: Database, connections: number): Promise<void> {
  const all = Promise.withResolvers<void>();
  let open = 0;
  await Promise.all(
    Array.from({ length: connections }, () =>
      database.call(async (tx) => {
        await sql`select 1`.execute(tx);
        open += 1;
        if (open === connections) all.resolve();
        await all.promise;
      }),
    ),
  );
}

test('a server killed under idle, asking and waiting transactions costs only those, and the pool finds it again', async () => {
  const database = open(apiUrl);
  await warm(database, 5);
  const started = Promise.withResolvers<void>();
  const killed = Promise.withResolvers<void>();
  const asking = database.call(async (tx) => {
    started.resolve();
    await sql`select pg_sleep(30)`.execute(tx);
  });
  const waiting = database.call(async (tx) => {
    await sql`select 1`.execute(tx);
    await killed.promise;
    await sql`select 1`.execute(tx);
  });
  const outcomes = Promise.allSettled([asking, waiting]);
  await started.promise;
  await until(() => database.stats().idle === 3, 'both transactions run');

  const directory = await withClient(server.url('postgres'), async (client) => {
    const { rows } = await client.query<{ data_directory: string }>('SHOW data_directory');
    return rows[0]?.data_directory ?? '';
  });
  process.kill(Number.parseInt(await readFile(join(directory, 'postmaster.pid'), 'utf8'), 10), 'SIGKILL');
  await until(() => lost.length >= 3, 'the idle connections are seen to be lost');
  killed.resolve();

  for (const outcome of await outcomes) {
    assert.equal(outcome.status, 'rejected');
    assert.ok(outcome.reason instanceof DatabaseUnavailableError);
  }
  await until(() => answers(database), 'the server is back');
  await database.close();
});

async function withProxy(work: (database: Database, proxy: TcpProxy) => Promise<void>): Promise<void> {
  const proxy = await startTcpProxy({ host: '127.0.0.1', port: server.port });
  const database = open(throughProxy(apiUrl, proxy));
  try {
    await work(database, proxy);
  } finally {
    proxy.set('reset');
    await database.close();
    await proxy.close();
  }
}

test('a server that hangs up at every turn is unavailable, and used again when it no longer does', async () => {
  await withProxy(async (database, proxy) => {
    await warm(database, 2);
    proxy.set('reset');
    for (let call = 0; call < 5; call += 1) await assert.rejects(one(database), DatabaseUnavailableError);
    proxy.set('pass');
    await until(() => answers(database), 'it answers again');
  });
});

test('a server that takes everything and answers nothing is given up by open and by new connections alike', async () => {
  await withProxy(async (database, proxy) => {
    await warm(database, 2);
    proxy.set('blackhole');
    // Two on connections that were open, three on new ones, two more that wait for any.
    const calls = await Promise.allSettled(Array.from({ length: 7 }, () => one(database)));
    for (const call of calls) {
      assert.equal(call.status, 'rejected');
      assert.ok(call.reason instanceof DatabaseUnavailableError);
    }
    assert.equal(database.stats().total, 0, 'no connection in an unknown state is kept');
    proxy.set('pass');
    assert.equal(await one(database), 1);
  });
});

test('a transaction whose connection is cut while it commits is unavailable, not done', async () => {
  await withProxy(async (database, proxy) => {
    const cut = database.call(async (tx) => {
      await sql`select 1`.execute(tx);
      proxy.set('reset');
      return 'done';
    });
    await assert.rejects(cut, DatabaseUnavailableError);
    proxy.set('pass');
    await until(() => answers(database), 'it answers again');
  });
});

test('closing does not wait for a silent server', async () => {
  const proxy = await startTcpProxy({ host: '127.0.0.1', port: server.port });
  const database = open(throughProxy(apiUrl, proxy));
  await warm(database, 3);
  proxy.set('blackhole');
  await database.close();
  await proxy.close();
});

test('a process that starts waits for a server that is not yet there, and no longer than it may', async () => {
  const proxy = await startTcpProxy({ host: '127.0.0.1', port: server.port });
  const connection = parseConnection(throughProxy(apiUrl, proxy));
  proxy.set('reset');
  const waiting = awaitDatabase(connection, 60_000);
  await until(() => proxy.accepted >= 2, 'it has tried twice');
  proxy.set('pass');
  await waiting;

  const lines = (error: unknown) =>
    error instanceof DatabaseStartError &&
    error.message.startsWith(`PostgreSQL at 127.0.0.1:${proxy.port} cannot be used: `);
  for (const mode of ['reset', 'blackhole'] as const) {
    proxy.set(mode);
    await assert.rejects(awaitDatabase(connection, 0), lines, mode);
  }
  await proxy.close();
});

test('a server that answers no is not asked again, and no password is repeated', async () => {
  const wrong = new URL(apiUrl);
  wrong.password = 'hunter2';
  for (const [url, reason] of [
    [wrong.href, /password authentication failed/],
    [apiUrl.replace(/\/iora$/, '/nothing'), /does not exist/],
  ] as const) {
    const refused = awaitDatabase(parseConnection(url), 600_000);
    await assert.rejects(refused, (error: Error) => reason.test(error.message) && !error.message.includes('hunter2'));
  }
});
