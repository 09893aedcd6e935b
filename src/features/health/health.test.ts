import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, beforeEach, test } from 'node:test';
import { startApplication, type TestApplication, until } from '../../../test/support/application.ts';
import { captureLog } from '../../../test/support/captured-log.ts';
import { type TestCluster, type TestDatabase, testCluster, withClient } from '../../../test/support/postgres.ts';
import { ownRedis, withoutRedis } from '../../../test/support/redis.ts';
import { startTcpProxy, type TcpProxy, throughProxy } from '../../../test/support/tcp-proxy.ts';
import type { Principal } from '../../kernel/context.ts';
import type { EndpointAnswer, EndpointRequest } from '../../kernel/endpoint.ts';
import { AppError } from '../../kernel/errors.ts';
import { openMetrics } from '../../platform/metrics.ts';
import { createRedis, type Redis } from '../../platform/redis.ts';
import { createHealth, createInstances, probePostgresql } from './index.ts';
import { createMetricsEndpoint } from './metrics-endpoint.ts';

const skip = await withoutRedis('own');

let cluster: TestCluster;
let database: TestDatabase;
let proxy: TcpProxy;
let iora: TestApplication;
before(async () => {
  cluster = await testCluster();
  database = await cluster.database();
  const { hostname, port } = new URL(database.apiUrl);
  proxy = await startTcpProxy({ host: hostname, port: Number(port) });
  iora = await startApplication(database, {
    serviceUrl: throughProxy(database.apiUrl, proxy),
  });
});
after(async () => {
  proxy.set('pass');
  await iora.close();
  await proxy.close();
  await cluster.stop();
});

const reachable = () => iora.app.database.call(async () => true).catch(() => false);
beforeEach(async () => {
  proxy.set('pass');
  await until(reachable, 'the database can be reached');
});

/** The endpoints of a server that has just started, which remembers no probe. */
function endpoints(redis: Redis | null = null, accepting = () => true) {
  const { endpoints: all } = createHealth({
    ...iora.app,
    redis,
    pool: iora.app.database.stats,
    accepting,
    version: '1.2.3',
  });
  return async (path: string, request: Partial<EndpointRequest> = {}): Promise<EndpointAnswer> => {
    const endpoint = all.find((candidate) => candidate.path === path) ?? assert.fail(path);
    return endpoint.answer({
      headers: {},
      ipAddress: '192.0.2.1',
      peerAddress: '192.0.2.1',
      body: () => Buffer.alloc(0),
      principal: async () => null,
      ...request,
    });
  };
}

const told = ({ status, body }: EndpointAnswer) => [status, body];
const as = (...permissions: ('admin:read' | 'tools:read')[]) => ({
  principal: async () => ({ permissions: new Set(permissions) }) as unknown as Principal,
});

test('alive is said whatever the database does; ready and healthy only while it answers', async () => {
  let isAccepting = true;
  const get = endpoints(null, () => isAccepting);
  assert.deepEqual(told(await get('/healthz')), [200, 'ok\n']);
  assert.deepEqual(told(await get('/readyz')), [200, 'ready\n']);
  assert.deepEqual(told(await get('/health/database')), [200, '{"status":"healthy"}']);
  isAccepting = false;
  assert.deepEqual(told(await get('/readyz')), [503, 'stopping\n']);
  assert.deepEqual(told(await get('/healthz')), [200, 'ok\n']);
  assert.deepEqual(told(await get('/health/database')), [200, '{"status":"healthy"}']);

  proxy.set('reset');
  const down = endpoints();
  assert.deepEqual(told(await down('/readyz')), [503, 'not ready\n']);
  assert.deepEqual(told(await down('/health/database')), [503, '{"status":"unhealthy"}']);
  assert.deepEqual(told(await down('/healthz')), [200, 'ok\n']);
});

test('a database that takes everything and answers nothing is unhealthy before its own statements are given up', async () => {
  proxy.set('blackhole');
  const get = endpoints();
  let givenUp = 0;
  const statement = iora.app.database
    .call(async () => undefined)
    .catch(() => {
      givenUp += 1;
    });
  const answers = await Promise.all([
    get('/readyz'),
    get('/health/database'),
    get('/health/database', as('admin:read')),
    get('/healthz'),
  ]);
  assert.deepEqual(
    answers.map(({ status }) => status),
    [503, 503, 503, 200],
  );
  const detail = JSON.parse(answers[2]?.body ?? '');
  assert.deepEqual(
    [detail.status, detail.postgresql.version, detail.postgresql.replication, detail.postgresql.migrations],
    ['unhealthy', null, null, null],
  );
  assert.equal((await probePostgresql(iora.app.database)).status, 'unhealthy');
  assert.equal(givenUp, 0);
  proxy.set('pass');
  await statement;
});

test('a caller whose credential cannot be looked up in time gets the word, without the detail', async () => {
  const answer = await endpoints()('/health/database', { principal: () => new Promise(() => undefined) });
  assert.deepEqual(told(answer), [200, '{"status":"healthy"}']);
  const broken = await endpoints()('/health/database', { principal: () => Promise.reject(new Error('broken')) });
  assert.deepEqual(told(broken), [200, '{"status":"healthy"}']);
});

test('detail is for administrators alone', async () => {
  for (const request of [{}, as(), as('tools:read')]) {
    assert.deepEqual(told(await endpoints()('/health/database', request)), [200, '{"status":"healthy"}']);
  }
  const { body } = await endpoints()('/health/database', as('admin:read'));
  const { postgresql, ...rest } = JSON.parse(body);
  assert.deepEqual(rest, { status: 'healthy', version: '1.2.3', usage: { pending: 0, max: 10_000 } });
  assert.match(postgresql.version, /^1[5-8]\./);
  assert.equal(typeof postgresql.latencyMs, 'number');
  assert.deepEqual(postgresql.replication, { inRecovery: false, replicas: 0 });
  assert.ok(postgresql.migrations.applied >= 11);
  assert.match(postgresql.migrations.latest, /^\d{3}_/);
  assert.equal(postgresql.listening, true);
  assert.equal(postgresql.pool.max, 10);
});

test('a Redis that is away degrades, and keeps nobody from serving', { skip }, async (context) => {
  const server = await ownRedis();
  const redis = createRedis({ url: server.url, prefix: 'p:', onLost: () => undefined });
  context.after(async () => {
    await redis.close();
    await server.stop();
  });
  redis.subscribe({ channels: { news: () => undefined } });
  redis.connect();
  await until(() => redis.connected, 'Redis is connected');
  const here = JSON.parse((await endpoints(redis)('/health/database', as('admin:read'))).body);
  assert.deepEqual([here.status, here.redis.status, typeof here.redis.latencyMs], ['healthy', 'healthy', 'number']);
  server.pause();
  const silent = endpoints(redis);
  assert.deepEqual(told(await silent('/health/database')), [200, '{"status":"degraded"}']);
  assert.equal(JSON.parse((await silent('/health/database', as('admin:read'))).body).redis.status, 'unhealthy');
  assert.deepEqual(told(await silent('/readyz')), [200, 'ready\n']);
  proxy.set('reset');
  assert.deepEqual(told(await endpoints(redis)('/health/database')), [503, '{"status":"unhealthy"}']);
});

test('many who ask at once share one question, and a recovery is seen', async () => {
  const get = endpoints();
  const before = proxy.accepted;
  const answers = await Promise.all(Array.from({ length: 200 }, () => get('/readyz')));
  assert.ok(answers.every(({ status }) => status === 200));
  assert.ok(proxy.accepted - before <= 1);
  proxy.set('reset');
  await until(async () => (await get('/readyz')).status === 503, 'the loss is seen');
  proxy.set('pass');
  await until(async () => (await get('/readyz')).status === 200, 'the recovery is seen');
});

const seen = async () =>
  (await withClient(database.superuserUrl, (client) => client.query('SELECT id FROM instances'))).rows.map(
    ({ id }) => id,
  );

test('an instance is on the list from its start to its goodbye, others only while their heart beats', async () => {
  const id = randomUUID();
  const [own] = await seen();
  const instances = createInstances({
    database: iora.app.database,
    log: captureLog(),
    id,
    version: '1.0.0',
    alone: false,
  });
  await instances.start();
  const [stale, forgotten] = [randomUUID(), randomUUID()];
  await iora.sql(
    `INSERT INTO instances (id, hostname, version, seen_at) VALUES ($1, 'h', '1', now() - interval '11 seconds'), ($2, 'h', '1', now() - interval '2 hours')`,
    [stale, forgotten],
  );
  const live = await iora.app.database.call((tx) => instances.live(tx));
  assert.deepEqual(live.toSorted(), [own, id].toSorted());
  await until(async () => !(await seen()).includes(forgotten), 'the next beat clears what is long gone');
  await instances.close();
  assert.deepEqual((await seen()).toSorted(), [own, stale].toSorted());

  const lone = createInstances({ database: iora.app.database, log: captureLog(), id, version: '1.0.0', alone: true });
  await lone.start();
  assert.deepEqual(await seen(), [id], 'who is alone knows that the others crashed');
  await lone.close();
});

test('metrics are for the token, or in development for this machine itself', async () => {
  const metrics = openMetrics();
  const ask = async (
    parts: { token?: string; mode: 'development' | 'production' },
    request: Partial<EndpointRequest> = {},
  ) => {
    const endpoint = createMetricsEndpoint({ metrics, token: parts.token, mode: parts.mode });
    const asked = {
      headers: {},
      ipAddress: '',
      peerAddress: '127.0.0.1',
      body: () => Buffer.alloc(0),
      principal: async () => null,
      ...request,
    };
    try {
      return (await endpoint.answer(asked)).status;
    } catch (refusal) {
      assert.ok(refusal instanceof AppError);
      return refusal.status;
    }
  };
  const token = 'a token of some length';
  assert.equal(await ask({ mode: 'development' }), 200);
  assert.equal(await ask({ mode: 'development' }, { peerAddress: '::ffff:127.0.0.1' }), 200);
  assert.equal(await ask({ mode: 'development' }, { peerAddress: '::1' }), 200);
  assert.equal(await ask({ mode: 'development' }, { peerAddress: '192.0.2.1' }), 404);
  assert.equal(await ask({ mode: 'development' }, { headers: { 'x-forwarded-for': '127.0.0.1' } }), 404);
  assert.equal(await ask({ mode: 'production' }), 404);
  assert.equal(await ask({ mode: 'production', token }), 404);
  assert.equal(await ask({ mode: 'development', token }), 404);
  for (const mode of ['development', 'production'] as const) {
    assert.equal(
      await ask({ mode, token }, { headers: { authorization: `Bearer ${token}` }, peerAddress: '192.0.2.1' }),
      200,
    );
    assert.equal(await ask({ mode, token }, { headers: { authorization: `Bearer ${token} ` } }), 404);
  }
});
