import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, beforeEach, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { startApplication, until } from '../../../test/support/application.ts';
import { captureLog } from '../../../test/support/captured-log.ts';
import { type TestCluster, type TestDatabase, testCluster, withClient } from '../../../test/support/postgres.ts';
import { startTcpProxy, throughProxy } from '../../../test/support/tcp-proxy.ts';
import type { Principal } from '../../kernel/context.ts';
import type { UsageEvent } from '../../kernel/invoke.ts';
import type { Operation } from '../../kernel/operation.ts';
import { parseConnection } from '../../platform/connection.ts';
import { type Database, DatabaseUnavailableError, openDatabase } from '../../platform/postgres.ts';
import { createUsageWriter, EVENTS_HELD_MAX } from './index.ts';

let cluster: TestCluster;
let database: TestDatabase;
before(async () => {
  cluster = await testCluster();
});
after(() => cluster.stop());
beforeEach(async () => {
  await database?.drop();
  database = await cluster.database();
});

const principal: Principal = {
  kind: 'session',
  ownerId: 'user_alice',
  userId: 'user_alice',
  orgId: null,
  role: null,
  permissions: new Set(),
  tier: 'free',
  limits: { requestsPerMinute: 1, requestsPerMonth: 1, maxApiKeys: 1 },
  key: null,
  service: null,
  scopes: null,
};
const operation = { name: 'test.run', route: { method: 'POST', path: '/test' } } as Operation;

function event(change: Partial<UsageEvent> = {}): UsageEvent {
  return {
    createdAtMs: Date.now(),
    principal,
    operation,
    symbol: null,
    statusCode: 200,
    responseTimeMs: 1.4,
    errorCode: null,
    cost: 1,
    requestId: randomUUID(),
    ...change,
  };
}

const open = (url = database.apiUrl) =>
  openDatabase({
    connection: parseConnection(url),
    poolMin: 0,
    poolMax: 4,
    connectionTimeoutMs: 5_000,
    applicationName: 'usage test',
  });

/** A writer that writes only when told to, unless given an interval. */
function writerOn(on: Database, flushIntervalMs = 3_600_000) {
  const log = captureLog();
  const observed = { written: 0, refused: 0, refusal_not_kept: 0 };
  const observe = (result: 'written' | 'refused' | 'refusal_not_kept', rows: number) => {
    observed[result] += rows;
  };
  return { writer: createUsageWriter({ database: on, flushIntervalMs, log, observe }), log, observed };
}

const rows = async (columns = '*') =>
  (await withClient(database.superuserUrl, (client) => client.query(`SELECT ${columns} FROM usage_logs`))).rows;

/** The request ids of the table, each once as often as it stands there. */
const written = async () => (await rows('request_id')).map((row) => row.request_id).toSorted();

/** Refuses connections to the database and ends those there are; undone by `false`. */
const takeAway = (away: boolean) =>
  withClient(cluster.superuserUrl, async (client) => {
    await client.query(`ALTER DATABASE ${database.name} ALLOW_CONNECTIONS ${!away}`);
    if (away)
      await client.query('SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1', [
        database.name,
      ]);
  });

test('a row says what the call was', async () => {
  const pool = open();
  const { writer } = writerOn(pool);
  const createdAtMs = Date.now();
  const key = { id: randomUUID(), secretId: randomUUID(), environment: 'test' } as Principal['key'];
  writer.record(
    event({
      createdAtMs,
      principal: { ...principal, ownerId: 'org_x', orgId: 'org_x', key },
      symbol: 'BTC',
      statusCode: 402,
      errorCode: 'quota_exceeded',
      cost: 0,
      requestId: 'r1',
    }),
  );
  await writer.flush();
  const [row] = await rows();
  assert.deepEqual(
    { ...row, id: '' },
    {
      id: '',
      user_id: 'user_alice',
      org_id: 'org_x',
      owner_id: 'org_x',
      api_key_id: key?.id,
      key_secret_id: key?.secretId,
      operation: 'test.run',
      endpoint: '/test',
      method: 'POST',
      symbol: 'BTC',
      status_code: 402,
      response_time_ms: 1,
      error_message: 'quota_exceeded',
      cost: 0,
      billable: false,
      request_id: 'r1',
      request_metadata: null,
      created_at: new Date(createdAtMs),
    },
  );
  await pool.close();
});

test('every event becomes one row, however records and flushes mix', async () => {
  const pool = open();
  const { writer, observed } = writerOn(pool, 5);
  const sent: string[] = [];
  const flushes: Promise<void>[] = [];
  for (let round = 0; round < 60; round += 1) {
    for (let call = 0; call < 1 + ((round * 37) % 200); call += 1) {
      const next = event();
      sent.push(next.requestId);
      writer.record(next);
      if (call % 50 === 7) flushes.push(writer.flush());
    }
    if (round % 3 === 0) await turn();
  }
  await Promise.all(flushes);
  await writer.flush();
  assert.equal(writer.pending(), 0);
  assert.deepEqual(await written(), sent.toSorted());
  assert.equal(observed.written, sent.length);
  await pool.close();
});

test('events are written by themselves, and a flush covers all that came before it', async () => {
  const pool = open();
  const timed = writerOn(pool, 5);
  timed.writer.record(event({ requestId: 'by timer' }));
  await until(() => timed.writer.pending() === 0, 'the timer has written');
  const { writer } = writerOn(pool);
  writer.record(event({ requestId: 'one' }));
  const first = writer.flush();
  writer.record(event({ requestId: 'two' }));
  await Promise.all([first, writer.flush()]);
  assert.deepEqual(await written(), ['by timer', 'one', 'two']);
  await pool.close();
});

test('while the database is away events wait; when it is back they are written, once', async () => {
  const pool = open();
  const { writer, log } = writerOn(pool, 5);
  const sent = ['before'];
  writer.record(event({ requestId: 'before' }));
  await writer.flush();
  await takeAway(true);
  for (let call = 0; call < 100; call += 1) {
    sent.push(`away ${call}`);
    writer.record(event({ requestId: `away ${call}` }));
  }
  await assert.rejects(writer.flush(), DatabaseUnavailableError);
  await until(
    () => log.named('usage rows could not be written; they are kept').length >= 2,
    'it tries again by itself',
  );
  assert.equal(writer.pending(), 100);
  await takeAway(false);
  await until(() => writer.pending() === 0, 'all of it is written');
  assert.deepEqual(await written(), sent.toSorted());
  await pool.close();
});

test('a batch whose outcome is unknown is written again and doubles nothing', async () => {
  const pool = open();
  let [before, after] = [0, 0];
  // The connection is lost at a random moment: before the batch reached the server, or after it was committed.
  const unsteady: Database = {
    ...pool,
    async call(work) {
      const luck = Math.random();
      if (luck < 0.3) {
        before += 1;
        throw new DatabaseUnavailableError(new Error('lost before'));
      }
      const result = await pool.call(work);
      if (luck > 0.7) {
        after += 1;
        throw new DatabaseUnavailableError(new Error('lost after'));
      }
      return result;
    },
  };
  const { writer } = writerOn(unsteady);
  const sent: string[] = [];
  for (let round = 0; before < 5 || after < 5 || writer.pending() > 0; round += 1) {
    assert.ok(round < 500);
    if (round < 50) {
      const next = event();
      sent.push(next.requestId);
      writer.record(next);
    }
    await writer.flush().catch((error: unknown) => assert.ok(error instanceof DatabaseUnavailableError));
  }
  assert.deepEqual(await written(), sent.toSorted());
  await pool.close();
});

test('a row that the database will not take is set aside with a loud line, and stops no other', async () => {
  const pool = open();
  const { writer, log, observed } = writerOn(pool);
  const bad = new Set([0, 17, 18, 63]);
  const good: string[] = [];
  for (let call = 0; call < 64; call += 1) {
    const requestId = bad.has(call) ? 'x'.repeat(200) : `call ${call}`;
    if (!bad.has(call)) good.push(requestId);
    writer.record(event({ requestId }));
  }
  await writer.flush();
  assert.equal(writer.pending(), 0);
  assert.deepEqual(await written(), good.toSorted());
  assert.deepEqual(observed, { written: 60, refused: 4, refusal_not_kept: 0 });
  assert.equal(log.lines().filter((line) => line.startsWith('error')).length, 4);
  await pool.close();
});

test('rows of a month that is not there yet make it; one of a month far from now is set aside and stops no other', async () => {
  const pool = open();
  const { writer, observed, log } = writerOn(pool);
  const month = new Date().toISOString().slice(0, 7).replace('-', '_');
  await withClient(database.superuserUrl, (client) => client.query(`DROP TABLE usage_logs_${month}`));
  writer.record(event({ requestId: 'this month' }));
  await writer.flush();
  assert.deepEqual(await written(), ['this month']);
  // A machine whose clock was years off for a moment must not stop the metering of everybody.
  writer.record(event({ requestId: 'far', createdAtMs: Date.now() + 600 * 86_400_000 }));
  writer.record(event({ requestId: 'near' }));
  await writer.flush();
  assert.equal(writer.pending(), 0);
  assert.deepEqual(await written(), ['near', 'this month']);
  assert.equal(observed.refused, 1);
  assert.ok(
    log.lines().some((line) => line.includes('far')),
    'the row stands in the log',
  );
  await pool.close();
});

test('refusals are recorded up to a bound a minute, and what is beyond it is counted', async () => {
  const pool = open();
  const { writer, observed } = writerOn(pool);
  const nowMs = Date.now();
  for (let call = 0; call < 1_500; call += 1) {
    writer.record(
      event({ requestId: `refused ${call}`, statusCode: 429, errorCode: 'rate_limited', cost: 0, createdAtMs: nowMs }),
    );
  }
  writer.record(event({ requestId: 'answered', createdAtMs: nowMs }));
  await writer.flush();
  assert.deepEqual(observed, { written: 1_001, refused: 0, refusal_not_kept: 500 });
  await pool.close();
});

test('closing writes what is left; what cannot be written in time is counted', async () => {
  const { hostname, port } = new URL(database.apiUrl);
  const proxy = await startTcpProxy({ host: hostname, port: Number(port) });
  const pool = open(throughProxy(database.apiUrl, proxy));
  const { writer } = writerOn(pool);
  writer.record(event({ requestId: 'in time' }));
  assert.equal(await writer.close(5_000), 0);
  assert.deepEqual(await written(), ['in time']);

  for (const mode of ['reset', 'blackhole'] as const) {
    proxy.set('pass');
    const { writer: cut } = writerOn(pool);
    await until(() => pool.call(async () => true).catch(() => false), 'it can be reached');
    proxy.set(mode);
    for (let call = 0; call < 3; call += 1) cut.record(event());
    // A silent server is waited for no longer than the deadline, though the statement under way waits longer.
    let statementsEnded = 0;
    cut.flush().catch(() => {
      statementsEnded += 1;
    });
    assert.equal(await cut.close(50), 3);
    if (mode === 'blackhole') assert.equal(statementsEnded, 0);
  }
  proxy.set('reset');
  await pool.close();
  await proxy.close();
});

test('when no more events can be held metered calls are refused, told when to come back, and charged nothing', async () => {
  const iora = await startApplication(database);
  const address = 'busy@example.com';
  const { userId } = await iora.bearer(await iora.token(address, undefined, true));
  await iora.sql(`UPDATE users SET tier = 'enterprise' WHERE id = $1`, [userId]);
  const session = await iora.session(address);
  const price = () => iora.call('market.get_price', session, { symbol: 'BTC' });
  assert.ok((await price()).ok);
  await takeAway(true);
  let answered = 1;
  while (iora.app.usage().pending < EVENTS_HELD_MAX) {
    const outcomes = await Promise.all(Array.from({ length: 100 }, price));
    answered += outcomes.filter((outcome) => outcome.ok).length;
  }
  const refused = await price();
  assert.ok(!refused.ok);
  assert.deepEqual([refused.error.code, refused.error.status, refused.limits], ['unavailable', 503, []]);
  assert.equal(typeof refused.error.details['retryAfterSeconds'], 'number');
  assert.ok(iora.app.usage().pending <= EVENTS_HELD_MAX + 100, 'what is held is bounded');
  const free = await iora.call('market.list_symbols', session, {});
  assert.ok(free.ok, 'what costs nothing is still answered');

  await takeAway(false);
  await until(() => iora.app.usage().pending === 0, 'all of it is written');
  const [{ rows: kept, cost }] = await iora.sql('SELECT count(*)::int AS rows, sum(cost)::int AS cost FROM usage_logs');
  assert.deepEqual([kept, cost], [answered, answered]);
  const last = await price();
  assert.ok(last.ok);
  const month = last.limits.find((limit) => limit.policy === 'month');
  assert.equal((month?.limit ?? 0) - (month?.remaining ?? 0), answered + 1);
  await iora.close();
});
