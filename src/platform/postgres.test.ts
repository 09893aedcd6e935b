import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { sql } from 'kysely';
import { type TestCluster, type TestDatabase, testCluster, withClient } from '../../test/support/postgres.ts';
import { AppError } from '../kernel/errors.ts';
import { parseConnection } from './connection.ts';
import {
  type Database,
  type DatabaseOptions,
  DatabaseUnavailableError,
  isMissingPartition,
  openDatabase,
  sqlState,
  type Transaction,
} from './postgres.ts';

let cluster: TestCluster;
let shared: TestDatabase;
before(async () => {
  cluster = await testCluster();
  shared = await cluster.database();
  await asSuperuser(
    shared,
    'CREATE TABLE scratch (id int PRIMARY KEY, n int NOT NULL); GRANT ALL ON scratch TO iora_api',
  );
});
after(() => cluster.stop());

const alice = { ownerId: 'user_alice', userId: 'user_alice' };

async function withDatabase(
  options: Partial<DatabaseOptions> & { url?: string },
  work: (database: Database) => Promise<void>,
): Promise<void> {
  const { url = shared.apiUrl, ...rest } = options;
  const database = openDatabase({
    connection: parseConnection(url),
    poolMin: 0,
    poolMax: 4,
    connectionTimeoutMs: 5_000,
    applicationName: `test ${randomUUID()}`,
    ...rest,
  });
  try {
    await work(database);
  } finally {
    await database.close();
  }
}

const asSuperuser = (database: TestDatabase, text: string) =>
  withClient(database.superuserUrl, (client) => client.query(text));

/** Resolves every `arrive` once that many have arrived; later ones pass. */
function barrier(parties: number): () => Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  let arrived = 0;
  return () => {
    arrived += 1;
    if (arrived >= parties) resolve();
    return promise;
  };
}

const settingsOf = async (tx: Transaction) => {
  const { rows } = await sql<{ role: string; owner: string; person: string; timeout: string }>`
    select current_user as role, current_setting('app.owner_id', true) as owner,
           current_setting('app.user_id', true) as person, current_setting('statement_timeout') as timeout`.execute(tx);
  return rows[0];
};

const backendPid = async (tx: Transaction) =>
  (await sql<{ pid: number }>`select pg_backend_pid() as pid`.execute(tx)).rows[0]?.pid;

test('what a transaction sets is gone for the next user of the connection, whatever became of it', async () => {
  await withDatabase({ poolMax: 1 }, async (database) => {
    const pids = new Set<number | undefined>();
    const see = async (tx: Transaction) => {
      pids.add(await backendPid(tx));
      return settingsOf(tx);
    };
    const fail = async (tx: Transaction) => {
      await see(tx);
      throw new Error('work failed');
    };
    const nobody = { role: 'iora_api', owner: '', person: '', timeout: '5s' };

    assert.deepEqual(await database.read(alice, see), {
      role: 'iora_api',
      owner: 'user_alice',
      person: 'user_alice',
      timeout: '5s',
    });
    assert.deepEqual(await database.call(see), nobody);
    await assert.rejects(database.write(alice, fail), /work failed/);
    assert.deepEqual(await database.call(see), nobody);
    await assert.rejects(
      database.read(alice, (tx) => sql`select 1/0`.execute(tx)),
      { code: '22012' },
    );
    assert.deepEqual(await database.call(see), nobody);
    assert.deepEqual(await database.read({ ownerId: 'org_x', userId: null }, see), { ...nobody, owner: 'org_x' });
    const hostile = "'); set role postgres; select ('";
    assert.equal((await database.read({ ownerId: hostile, userId: null }, see))?.owner, hostile);
    assert.deepEqual(await database.call(see), nobody);
    assert.equal(pids.size, 1, 'all of it happened on one connection');
  });
});

test('even as superuser the login acts as the service role', async () => {
  await withDatabase({ url: shared.superuserUrl }, async (database) => {
    assert.equal((await database.call(settingsOf))?.role, 'iora_api');
  });
});

test('a transaction that lost a serialization race is run again, whole', async () => {
  const serializable = await cluster.database();
  await asSuperuser(
    serializable,
    `CREATE TABLE scratch (id int PRIMARY KEY, n int NOT NULL); GRANT ALL ON scratch TO iora_api; INSERT INTO scratch VALUES (1, 10), (2, 10);
     ALTER DATABASE ${serializable.name} SET default_transaction_isolation = 'serializable'`,
  );
  const attempts: number[] = [];
  await withDatabase(
    { url: serializable.apiUrl, observe: (event) => attempts.push(event.attempts) },
    async (database) => {
      // Each takes all it may from one row as long as both rows together stay at 0 or above: together they would not.
      const bothHaveRead = barrier(2);
      const take = (id: number) =>
        database.write(alice, async (tx) => {
          const { rows } = await sql<{ total: number }>`select sum(n)::int as total from scratch`.execute(tx);
          await bothHaveRead();
          const taken = Math.min(15, rows[0]?.total ?? 0);
          await sql`update scratch set n = n - ${taken} where id = ${id}`.execute(tx);
          return taken;
        });
      const taken = await Promise.all([take(1), take(2)]);
      assert.deepEqual(taken.toSorted(), [15, 5]);
    },
  );
  assert.deepEqual(attempts.toSorted(), [1, 2]);
  assert.deepEqual((await asSuperuser(serializable, 'SELECT sum(n)::int AS n FROM scratch')).rows, [{ n: 0 }]);
});

test('the one chosen in a deadlock is run again', async () => {
  await asSuperuser(shared, 'TRUNCATE scratch; INSERT INTO scratch VALUES (1, 0), (2, 0)');
  const attempts: number[] = [];
  await withDatabase({ observe: (event) => attempts.push(event.attempts) }, async (database) => {
    const bothHoldOne = barrier(2);
    const bump = (first: number, second: number) =>
      database.write(alice, async (tx) => {
        await sql`update scratch set n = n + 1 where id = ${first}`.execute(tx);
        await bothHoldOne();
        await sql`update scratch set n = n + 1 where id = ${second}`.execute(tx);
      });
    await Promise.all([bump(1, 2), bump(2, 1)]);
  });
  assert.deepEqual(attempts.toSorted(), [1, 2]);
  assert.deepEqual((await asSuperuser(shared, 'SELECT n FROM scratch ORDER BY id')).rows, [{ n: 2 }, { n: 2 }]);
});

test('a race that is lost every time is given up', async () => {
  let runs = 0;
  await withDatabase({}, async (database) => {
    const lose = (tx: Transaction) => {
      runs += 1;
      return sql`do $$ begin raise exception 'lost again' using errcode = '40001'; end $$`.execute(tx);
    };
    await assert.rejects(database.write(alice, lose), { code: '40001' });
  });
  assert.equal(runs, 4);
});

test('a pool with no connection to give says so while the others are still busy', async () => {
  await withDatabase({ poolMax: 1, connectionTimeoutMs: 1_500 }, async (database) => {
    const held = Promise.withResolvers<void>();
    const taken = Promise.withResolvers<void>();
    const holder = database.call(async () => {
      taken.resolve();
      await held.promise;
    });
    await taken.promise;
    await assert.rejects(database.call(settingsOf), DatabaseUnavailableError);
    assert.equal(database.stats().waiting, 0);
    held.resolve();
    await holder;
    assert.equal((await database.call(settingsOf))?.role, 'iora_api');
  });
});

test('a server that is not there, and a closed pool, are unavailable', async () => {
  await withDatabase({ url: 'postgres://iora_api@127.0.0.1:1/none' }, async (database) => {
    await assert.rejects(database.call(settingsOf), DatabaseUnavailableError);
  });
  const closed = openDatabase({
    connection: parseConnection(shared.apiUrl),
    poolMin: 0,
    poolMax: 1,
    connectionTimeoutMs: 5_000,
    applicationName: 'test',
  });
  await closed.close();
  await closed.close();
  await assert.rejects(closed.call(settingsOf), DatabaseUnavailableError);
});

test('a connection that dies under a transaction that is not asking anything ends only that transaction', async () => {
  // Without a listener on the leased connection its error would end the whole process.
  await withDatabase({ poolMax: 1 }, async (database) => {
    const dead = database.call(async (tx) => {
      const pid = await backendPid(tx);
      await asSuperuser(shared, `SELECT pg_terminate_backend(${pid}, 5000)`);
      await turn();
      return backendPid(tx);
    });
    await assert.rejects(dead, DatabaseUnavailableError);
    assert.equal((await database.call(settingsOf))?.role, 'iora_api');
  });
});

test('a statement that takes too long, or waits too long for a lock, is unavailable', async () => {
  await withDatabase({}, async (database) => {
    await assert.rejects(
      database.call(async (tx) => {
        await sql`set local statement_timeout = 20`.execute(tx);
        await sql`select pg_sleep(10)`.execute(tx);
      }),
      DatabaseUnavailableError,
    );
    await withClient(shared.superuserUrl, async (client) => {
      await client.query('BEGIN; LOCK TABLE scratch IN ACCESS EXCLUSIVE MODE');
      await assert.rejects(
        database.call(async (tx) => {
          await sql`set local lock_timeout = 20`.execute(tx);
          await sql`select * from scratch`.execute(tx);
        }),
        DatabaseUnavailableError,
      );
    });
  });
});

test('what the work throws comes out as it is, however much it looks like a lost connection', async () => {
  const thrown = [
    new AppError('not_found', 'There is no such thing.'),
    new TypeError('Connection terminated unexpectedly'),
    Object.assign(new Error('no such file'), { code: 'ENOENT' }),
    Object.assign(new Error('refused by another service'), { code: 'ECONNREFUSED' }),
    'a string',
  ];
  await withDatabase({}, async (database) => {
    for (const error of thrown) {
      const seen = await database
        .write(alice, () => Promise.reject(error))
        .then(
          () => undefined,
          (caught: unknown) => caught,
        );
      assert.equal(seen, error);
    }
  });
});

test('mistakes in statements are mistakes, not outages', async () => {
  await withDatabase({}, async (database) => {
    const state = (work: (tx: Transaction) => Promise<unknown>, how: 'read' | 'write' = 'write') =>
      database[how](alice, work).then(
        () => 'succeeded',
        (error: unknown) => sqlState(error) ?? String(error),
      );
    assert.equal(await state((tx) => sql`select nonsense`.execute(tx)), '42703');
    assert.equal(await state((tx) => sql`delete from users`.execute(tx)), '42501');
    assert.equal(await state((tx) => sql`delete from scratch`.execute(tx), 'read'), '25006');
    const circular: Record<string, unknown> = {};
    circular['self'] = circular;
    assert.match(await state((tx) => sql`select ${circular}::text`.execute(tx)), /circular/);
  });
});

test('a transaction whose work hid a failed statement does not count as committed', async () => {
  await asSuperuser(shared, 'TRUNCATE scratch');
  await withDatabase({ poolMax: 1 }, async (database) => {
    const hiding = database.write(alice, async (tx) => {
      await sql`insert into scratch values (7, 7)`.execute(tx);
      await sql`select 1/0`.execute(tx).catch(() => undefined);
      return 'done';
    });
    await assert.rejects(hiding, /rolled back/);
    assert.equal((await database.call(settingsOf))?.role, 'iora_api');
  });
  assert.equal((await asSuperuser(shared, 'SELECT FROM scratch')).rowCount, 0);
});

test('a transaction that cannot even begin leaves its connection usable', async () => {
  const login = `stranger_${randomUUID().slice(0, 8)}`;
  await asSuperuser(shared, `CREATE ROLE ${login} LOGIN PASSWORD 'stranger'`);
  const url = new URL(shared.superuserUrl);
  url.username = login;
  url.password = 'stranger';
  try {
    await withDatabase({ url: url.href, poolMax: 1 }, async (database) => {
      await assert.rejects(database.call(settingsOf), { code: '42501' });
      await asSuperuser(shared, `GRANT iora_api TO ${login}`);
      assert.equal((await database.call(settingsOf))?.role, 'iora_api');
    });
  } finally {
    await asSuperuser(shared, `DROP ROLE ${login}`);
  }
});

/** The partition of the month that many months from now, as PostgreSQL names it. */
const partition = (table: string, monthsAhead = 0) => {
  const now = new Date();
  const month = new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + monthsAhead, 1)).toISOString();
  return { name: `${table}_${month.slice(0, 7).replace('-', '_')}`, middle: `${month.slice(0, 7)}-15T12:00:00Z` };
};

const usageRow = (createdAt: string) =>
  JSON.stringify([
    {
      id: randomUUID(),
      owner_id: 'user_alice',
      user_id: 'user_alice',
      operation: 'test.run',
      endpoint: '/',
      method: 'POST',
      status_code: 200,
      cost: 1,
      billable: true,
      request_id: 'r',
      created_at: createdAt,
    },
  ]);

test('rows of a month that has no partition make it, through a function and directly, many at once', async () => {
  const months = await cluster.database();
  const [usage, audit, last] = [partition('usage_logs'), partition('audit_logs'), partition('usage_logs', -1)];
  await asSuperuser(months, `DROP TABLE ${usage.name}, ${audit.name}`);
  const attempts: number[] = [];
  await withDatabase({ url: months.apiUrl, observe: (event) => attempts.push(event.attempts) }, async (database) => {
    const record = (createdAt: string) =>
      database.call((tx) => sql`select record_usage(${usageRow(createdAt)}::json)`.execute(tx));
    await Promise.all(Array.from({ length: 8 }, () => record(usage.middle)));
    await record(last.middle);
    await asSuperuser(months, `DROP TABLE ${audit.name}`);
    await database.write(alice, (tx) =>
      tx
        .insertInto('audit_logs')
        .values({
          owner_id: 'user_alice',
          user_id: 'user_alice',
          actor_type: 'session',
          action: 'tested',
          outcome: 'succeeded',
          created_at: new Date(audit.middle),
        })
        .execute(),
    );
  });
  const { rows } = await asSuperuser(
    months,
    'SELECT tableoid::regclass::text AS month, count(*)::int AS rows FROM usage_logs GROUP BY 1 ORDER BY 1',
  );
  assert.deepEqual(rows, [
    { month: last.name, rows: 1 },
    { month: usage.name, rows: 8 },
  ]);
  assert.equal((await asSuperuser(months, `SELECT FROM ${audit.name}`)).rowCount, 1);
  assert.ok(attempts.every((count) => count <= 2));
});

test('a row of a month that is never made is refused after one try to make it', async () => {
  const attempts: number[] = [];
  await withDatabase({ observe: (event) => attempts.push(event.attempts) }, async (database) => {
    const far = partition('usage_logs', 20).middle;
    const refused = database.call((tx) => sql`select record_usage(${usageRow(far)}::json)`.execute(tx));
    await assert.rejects(refused, (error) => isMissingPartition(error) && !(error instanceof DatabaseUnavailableError));
  });
  assert.deepEqual(attempts, [2]);
});

test('a look-up in one round trip answers rows, leaves nothing behind, and a refused one leaves the connection usable', async () => {
  const own = await cluster.database();
  await withDatabase({ url: own.apiUrl, poolMax: 1 }, async (database) => {
    assert.deepEqual(await database.callWithHash('find_api_key', new Uint8Array(32)), []);
    assert.equal((await database.call(settingsOf))?.owner, '', 'the connection is as it was');
    await asSuperuser(own, 'REVOKE EXECUTE ON FUNCTION find_api_key FROM iora_api');
    await assert.rejects(database.callWithHash('find_api_key', new Uint8Array(32)), { code: '42501' });
    await asSuperuser(own, 'GRANT EXECUTE ON FUNCTION find_api_key TO iora_api');
    assert.deepEqual(await database.callWithHash('find_api_key', new Uint8Array(32)), []);
  });
});
