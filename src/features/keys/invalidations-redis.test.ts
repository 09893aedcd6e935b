import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { startApplication, type TestApplication, testSecrets, until } from '../../../test/support/application.ts';
import { type TestCluster, type TestDatabase, testCluster } from '../../../test/support/postgres.ts';
import { type OwnRedis, ownRedis, withoutRedis } from '../../../test/support/redis.ts';
import { startTcpProxy, type TcpProxy, throughProxy } from '../../../test/support/tcp-proxy.ts';
import type { Principal } from '../../kernel/context.ts';

// Two instances with a Redis between them; the second one's LISTEN can be cut off.
const skip = await withoutRedis('own');
const secrets = testSecrets();
let cluster: TestCluster;
let database: TestDatabase;
let redis: OwnRedis;
let listen: TcpProxy;
let one: TestApplication;
let two: TestApplication;
before(async () => {
  if (skip !== false) return;
  cluster = await testCluster();
  database = await cluster.database();
  redis = await ownRedis();
  const { hostname, port } = new URL(database.apiUrl);
  listen = await startTcpProxy({ host: hostname, port: Number(port) });
  // What is remembered is believed for a minute, so that only an invalidation explains a refusal.
  const settings = { KEY_CACHE_TTL: '60', REDIS_URL: redis.url, REDIS_PREFIX: redis.prefix };
  one = await startApplication(database, { settings, secrets });
  two = await startApplication(database, { settings, secrets, directUrl: throughProxy(database.apiUrl, listen) });
  await connected();
});
after(async () => {
  if (skip !== false) return;
  listen.set('pass');
  await Promise.all([one.close(), two.close()]);
  await listen.close();
  await redis.stop();
  await cluster.stop();
});

const connected = () =>
  until(() => one.app.redis?.connected === true && two.app.redis?.connected === true, 'both have Redis');

let people = 0;
/** A key that both remember, and who may revoke it. */
async function knownKey(): Promise<{ session: Principal; id: string; key: string }> {
  people += 1;
  const session = await one.session(`person-${people}@example.com`);
  const made = await one.output<{ id: string; key: string }>('keys.create', session, { name: 'a key' });
  for (const application of [one, two]) await application.bearer(made.key);
  return { session, ...made };
}

async function revoke(application: TestApplication, { session, id }: { session: Principal; id: string }) {
  const { effectiveOn, of } = await application.output<{ effectiveOn: number; of: number }>('keys.revoke', session, {
    id,
  });
  return [effectiveOn, of];
}

const isRefused = (application: TestApplication, key: string) =>
  application.bearer(key).then(
    () => false,
    (error: { code?: string }) => error.code === 'unauthenticated',
  );

test('an instance whose LISTEN is cut off hears by Redis, and is heard', { skip }, async () => {
  for (const mode of ['blackhole', 'reset'] as const) {
    const first = await knownKey();
    const second = await knownKey();
    listen.set(mode);
    assert.deepEqual(await revoke(one, first), [2, 2]);
    assert.equal(await isRefused(two, first.key), true);
    assert.deepEqual(await revoke(two, second), [2, 2], 'and the other way round');
    assert.equal(await isRefused(one, second.key), true);
    listen.set('pass');
    await until(() => two.app.listening(), 'it listens again');
  }
});

test('a Redis that is silent or gone delays nothing and loses nothing', { skip }, async () => {
  const [silent, gone] = [await knownKey(), await knownKey()];
  redis.pause();
  assert.deepEqual(await revoke(one, silent), [2, 2]);
  assert.equal(await isRefused(two, silent.key), true);
  redis.resume();
  await redis.kill();
  assert.deepEqual(await revoke(two, gone), [2, 2]);
  assert.equal(await isRefused(one, gone.key), true);
  const kept = await knownKey();
  // Unheard of by anybody, so that it shows whether what is remembered was forgotten.
  await one.sql('UPDATE api_keys SET is_active = false WHERE family_id = $1', [kept.id]);
  await redis.restart();
  await connected();
  assert.equal(await isRefused(two, kept.key), false, 'nothing was missed meanwhile, so nothing is forgotten');
});

test('a process without Redis reaches everybody by LISTEN', { skip }, async () => {
  const command = await startApplication(database, { secrets, serves: false });
  const known = await knownKey();
  assert.deepEqual(await revoke(command, known), [2, 2]);
  for (const application of [one, two]) assert.equal(await isRefused(application, known.key), true);
  await command.close();
});

test('what is no message of ours changes nothing, on Redis neither', { skip }, async () => {
  const known = await knownKey();
  const heard = () => two.log.named('an invalidation could not be read').length;
  const before = heard();
  for (const junk of ['', '{}', '"', JSON.stringify({ id: 'x', tags: [`family:${known.id}`] })]) {
    await one.app.redis?.publish('invalidate', junk);
    await one.app.redis?.publish('acknowledge', junk);
  }
  await until(() => heard() === before + 4, 'all of it was heard');
  assert.equal(await isRefused(two, known.key), false);
  assert.deepEqual(await revoke(one, known), [2, 2]);
});
