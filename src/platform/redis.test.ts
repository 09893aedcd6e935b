import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import { fileURLToPath } from 'node:url';
import { until } from '../../test/support/application.ts';
import {
  freePort,
  type OwnRedis,
  ownRedis,
  type TestRedis,
  testRedis,
  withoutRedis,
} from '../../test/support/redis.ts';
import { createRedis, type Redis, RedisUnavailableError } from './redis.ts';

const skip = await withoutRedis();
const skipOwn = await withoutRedis('own');

let shared: TestRedis;
const opened: Redis[] = [];
before(async () => {
  if (skip === false) shared = await testRedis();
});
after(async () => {
  await Promise.all(opened.map((redis) => redis.close()));
  if (skip === false) await shared.stop();
});

/** A connection that is ready, and the outages it told of. */
async function connect(url = shared.url, prefix = `${shared?.prefix ?? ''}${randomUUID()}:`) {
  const { redis, lost } = open(url, prefix);
  await until(() => redis.connected, 'Redis is connected');
  return { redis, lost, prefix };
}

function open(url: string, prefix = 'p:') {
  const lost: Error[] = [];
  const redis = createRedis({ url, prefix, onLost: (error) => lost.push(error) });
  opened.push(redis);
  redis.connect();
  return { redis, lost };
}

/** What the connection hears on the channel `news`, and how often it has subscribed. */
async function hear(redis: Redis) {
  const heard: string[] = [];
  const seen = { subscriptions: 0 };
  redis.subscribe({
    channels: { news: (payload) => heard.push(payload) },
    onConnect: () => {
      seen.subscriptions += 1;
    },
  });
  await until(() => seen.subscriptions === 1, 'it has subscribed');
  return { heard, seen };
}

/** Ends a server when the test ends, however it ends. */
async function own(context: { after(work: () => Promise<void>): void }, settings?: readonly string[]) {
  const server = await ownRedis(settings);
  context.after(() => server.stop());
  return server;
}

const isUnavailable = (error: unknown) => error instanceof RedisUnavailableError;

test('a key is noted once, by whoever comes first, until its moment', { skip }, async () => {
  const { redis, prefix } = await connect();
  const { redis: other } = await connect(shared.url, prefix);
  const { redis: stranger } = await connect();
  const inAMinute = Date.now() + 60_000;
  const noted = await Promise.all(
    Array.from({ length: 50 }, (_, index) => (index % 2 === 0 ? redis : other).setOnce('n', inAMinute)),
  );
  assert.equal(noted.filter(Boolean).length, 1);
  assert.equal(await other.setOnce('another', inAMinute), true);
  assert.equal(await stranger.setOnce('n', inAMinute), true, 'another installation has keys of its own');
  assert.equal(await redis.setOnce('short', Date.now() + 50), true);
  await until(() => other.setOnce('short', inAMinute), 'it is forgotten at its moment');
});

test('messages reach every subscriber of the installation, in order, and nobody else', { skip }, async () => {
  const { redis, prefix } = await connect();
  const { redis: other } = await connect(shared.url, prefix);
  const { redis: stranger } = await connect();
  const ears = [await hear(redis), await hear(other)];
  const strange = await hear(stranger);
  const sent = Array.from({ length: 20 }, (_, index) => `${index} ü`);
  for (const payload of sent) await redis.publish('news', payload);
  await redis.publish('other', 'unheard');
  await stranger.publish('news', 'elsewhere');
  await until(() => strange.heard.length === 1 && ears.every(({ heard }) => heard.length === 20), 'all have heard');
  for (const { heard } of ears) assert.deepEqual(heard, sent);
});

test('login, password and database of the address are used', { skip: skipOwn }, async (context) => {
  const server = await own(context, ['--requirepass', 'p@ss', '--user', 'me', 'on', '>word', '~*', '&*', '+@all']);
  const address = (login: string, db: number) => `redis://${login}@127.0.0.1:${server.port}/${db}`;
  const inAMinute = Date.now() + 60_000;
  const { redis: one } = await connect(address(':p%40ss', 0), 'p:');
  const { redis: two } = await connect(address('me:word', 1), 'p:');
  assert.equal(await one.setOnce('key', inAMinute), true);
  assert.equal(await two.setOnce('key', inAMinute), true, 'another database has keys of its own');
  const { redis: wrong, lost } = open(address('me:secret', 0));
  await until(() => lost.length === 1, 'the refusal is told');
  assert.ok(isUnavailable(lost[0]) && /WRONGPASS/.test(String(lost[0])));
  assert.ok(!JSON.stringify(lost[0], Object.getOwnPropertyNames(lost[0])).includes('secret'));
  assert.equal(wrong.connected, false);
});

test('while Redis is away calls reject at once, and it is found again however long that takes', {
  skip: skipOwn,
}, async (context) => {
  const server = await own(context);
  const { redis, lost } = await connect(server.url, 'p:');
  const { heard, seen } = await hear(redis);
  for (let round = 1; round <= 2; round += 1) {
    await server.kill();
    await until(() => !redis.connected, 'the loss is seen');
    for (const call of [redis.ping(), redis.publish('news', 'lost'), redis.setOnce('a', Date.now() + 1_000)]) {
      await assert.rejects(call, isUnavailable);
    }
    await server.restart();
    await until(() => redis.connected && seen.subscriptions === round + 1, 'both are back');
    await redis.publish('news', `round ${round}`);
    await until(() => heard.at(-1) === `round ${round}`, 'it hears again');
  }
  assert.deepEqual(heard, ['round 1', 'round 2'], 'what was sent meanwhile is lost, as is said');
  assert.equal(lost.length, 4, 'each of two outages is told once by each of two connections');
});

test('a Redis that answers nothing is noticed, and no call waits for it', { skip: skipOwn }, async (context) => {
  const server = await own(context);
  const { redis } = await connect(server.url, 'p:');
  const { heard, seen } = await hear(redis);
  server.pause();
  context.after(async () => server.resume());
  await assert.rejects(redis.ping(), isUnavailable);
  await until(() => !redis.connected, 'the silence is noticed');
  const late = open(server.url);
  await until(() => late.lost.length > 0, 'one that never answered is away');
  await late.redis.close();
  server.resume();
  await until(() => redis.connected && seen.subscriptions > 1, 'it is connected again');
  await redis.publish('news', 'after');
  await until(() => heard.at(-1) === 'after', 'it hears again');
});

test('a server that has become a replica is left for the one that is not', { skip: skipOwn }, async (context) => {
  const server = await own(context);
  const { redis, lost } = await connect(server.url, 'p:');
  const { redis: admin } = await connect(server.url, 'p:');
  await replicaOf(server, `127.0.0.1 ${server.port}`);
  await assert.rejects(redis.setOnce('a', Date.now() + 1_000), isUnavailable);
  assert.equal(lost.length, 1);
  await replicaOf(server, 'NO ONE');
  await until(() => redis.setOnce('b', Date.now() + 60_000).catch(() => false), 'it writes again');
  await admin.ping();
});

test('closing ends at once and for good, whatever the connection is doing', { skip: skipOwn }, async (context) => {
  const server = await own(context);
  const { redis: idle } = await connect(server.url);
  await hear(idle);
  await idle.close();
  await idle.close();
  const { redis: connecting } = open(server.url);
  await connecting.close();
  const { redis: paused } = await connect(server.url);
  await hear(paused);
  server.pause();
  const call = assert.rejects(paused.ping(), isUnavailable);
  await paused.close();
  await call;
  server.resume();
  await server.kill();
  const { redis: refused, lost } = open(server.url);
  await until(() => lost.length > 0, 'a try fails');
  await refused.close();
  for (const redis of [idle, connecting, paused, refused]) {
    assert.equal(redis.connected, false);
    await assert.rejects(redis.ping(), isUnavailable);
  }
});

test('a cluster is used through any of its nodes', { skip: skipOwn }, async (context) => {
  const server = await own(context, [
    ...['--cluster-enabled', 'yes', '--cluster-announce-ip', '127.0.0.1'],
    // Else ten thousand above the other, where there may be no port any more.
    ...['--cluster-port', String(await freePort())],
  ]);
  await say(server, 'CLUSTER ADDSLOTSRANGE 0 16383');
  const { redis } = await connect(`redis-cluster://127.0.0.1:1,127.0.0.1:${server.port}`, 'p:');
  const { heard, seen } = await hear(redis);
  for (const key of ['a', 'b', 'c']) assert.equal(await redis.setOnce(key, Date.now() + 60_000), true);
  assert.equal(await redis.setOnce('a', Date.now() + 60_000), false);
  await redis.publish('news', 'one');
  await until(() => heard.length === 1, 'it is heard');
  await server.kill();
  await until(() => !redis.connected, 'the loss is seen');
  await assert.rejects(redis.ping(), isUnavailable);
  await server.restart();
  await say(server, 'CLUSTER ADDSLOTSRANGE 0 16383').catch(() => undefined);
  await until(() => redis.connected && seen.subscriptions > 1, 'it is found again');
});

test('sentinels say which server it is', { skip: skipOwn }, async (context) => {
  const server = await own(context, ['--requirepass', 'secret']);
  const folder = mkdtempSync(join(tmpdir(), 'iora-sentinel-'));
  context.after(async () => rmSync(folder, { recursive: true, force: true }));
  const file = join(folder, 'sentinel.conf');
  writeFileSync(file, `sentinel monitor main 127.0.0.1 ${server.port} 1\nsentinel auth-pass main secret\n`);
  const sentinel = await own(context, [file, '--sentinel']);
  const { redis } = await connect(`redis-sentinel://:secret@127.0.0.1:1,127.0.0.1:${sentinel.port}/main`, 'p:');
  const { heard } = await hear(redis);
  await redis.publish('news', 'one');
  await until(() => heard.length === 1, 'it is heard');
  const { redis: unknown, lost } = open(`redis-sentinel://127.0.0.1:${sentinel.port}/other`);
  await until(() => lost.length > 0, 'a name nobody knows is told');
  assert.equal(unknown.connected, false);
});

/** Key and certificate of `localhost`, made by `openssl req -x509` for a hundred years and known to nobody but this test. */
const certificate = fileURLToPath(new URL('../../test/fixtures/localhost.pem', import.meta.url));

test('with rediss the certificate is verified', { skip: skipOwn }, async (context) => {
  const port = await freePort();
  const tls = ['--tls-port', String(port), '--tls-auth-clients', 'no'];
  await own(context, [...tls, '--tls-cert-file', certificate, '--tls-key-file', certificate]);
  const unknown = open(`rediss://localhost:${port}`);
  await until(() => unknown.lost.length > 0, 'an unknown authority is refused');
  assert.match(String(unknown.lost[0]), /self-signed certificate/);
  const authorities = getCACertificates('default');
  context.after(async () => setDefaultCACertificates(authorities));
  setDefaultCACertificates([...authorities, readFileSync(certificate, 'utf8')]);
  await until(() => unknown.redis.connected, 'a known one is not');
  const misnamed = open(`rediss://127.0.0.1:${port}`);
  await until(() => misnamed.lost.length > 0, 'another name is refused');
  assert.match(String(misnamed.lost[0]), /does not match certificate/);
});

/** Makes it a replica of that, or of `NO ONE`. */
const replicaOf = (server: OwnRedis, of: string) => say(server, `REPLICAOF ${of}`);

/** A command in the server's own tongue. */
async function say(server: OwnRedis, command: string): Promise<void> {
  const socket = createConnection(server.port, '127.0.0.1');
  socket.write(`${command}\r\n`);
  const [answer] = await once(socket, 'data');
  socket.destroy();
  if (String(answer).startsWith('-')) throw new Error(String(answer));
}
