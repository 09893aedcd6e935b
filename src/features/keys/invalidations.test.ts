import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import { startApplication, type TestApplication, testSecrets, until } from '../../../test/support/application.ts';
import { type TestCluster, type TestDatabase, testCluster } from '../../../test/support/postgres.ts';
import { startTcpProxy, throughProxy } from '../../../test/support/tcp-proxy.ts';
import type { Principal } from '../../kernel/context.ts';
import { openBus } from '../../platform/bus.ts';
import { parseConnection } from '../../platform/connection.ts';
import { openDatabase } from '../../platform/postgres.ts';
import { createInvalidations } from './index.ts';

// Every application here believes what it remembers for a minute, so that only an invalidation explains a refusal.
const settings = { KEY_CACHE_TTL: '60' };

let cluster: TestCluster;
let database: TestDatabase;
const secrets = testSecrets();
let one: TestApplication;
let two: TestApplication;
before(async () => {
  cluster = await testCluster();
  database = await cluster.database();
  one = await startApplication(database, { settings, secrets });
  two = await startApplication(database, { settings, secrets });
});
after(async () => {
  await Promise.all([one.close(), two.close()]);
  await cluster.stop();
});

let people = 0;
async function person(): Promise<{ email: string; session: Principal }> {
  people += 1;
  const email = `person-${people}@example.com`;
  return { email, session: await one.session(email) };
}

/** A key that both applications remember. */
async function knownKey(session: Principal, remembering: TestApplication[] = [one, two]) {
  const made = await one.output<{ id: string; key: string }>('keys.create', session, { name: 'a key' });
  for (const application of remembering) await application.bearer(made.key);
  return made;
}

interface Revoked {
  readonly effectiveOn: number;
  readonly of: number;
  readonly ms: number;
}
const revoke = (application: TestApplication, session: Principal, id: string) =>
  application.output<Revoked>('keys.revoke', session, { id });
const isRefused = (application: TestApplication, credential: string) =>
  application.bearer(credential).then(
    () => false,
    (error: { code?: string }) => error.code === 'unauthenticated',
  );
const notify = (payload: string) => one.sql(`SELECT pg_notify('iora_invalidate', $1)`, [payload]);
const announce = (...tags: string[]) => notify(JSON.stringify({ id: randomUUID(), tags }));

test('what one instance revokes every instance refuses from the answer on, and the answer says so', async () => {
  const { session } = await person();
  for (let round = 0; round < 10; round += 1) {
    const { id, key } = await knownKey(session);
    const [revoking, other] = round % 2 === 0 ? [one, two] : [two, one];
    const { effectiveOn, of } = await revoke(revoking, session, id);
    assert.deepEqual([effectiveOn, of], [2, 2]);
    assert.equal(await isRefused(other, key), true);
    assert.equal(await isRefused(revoking, key), true);
  }
});

test('an update reaches the other instance', async () => {
  const { session } = await person();
  const { id, key } = await knownKey(session);
  await one.output('keys.update', session, { id, permissions: ['usage:read'] });
  await until(async () => (await two.bearer(key)).permissions.has('usage:read'), 'the other instance sees it');
});

test('a suspended owner is refused with every credential once it is told, and welcome again when resumed', async () => {
  const { email, session } = await person();
  const { key } = await knownKey(session);
  const credentials = [key, await one.token(email)];
  for (const application of [one, two]) for (const credential of credentials) await application.bearer(credential);
  const all = async (refused: boolean) => {
    for (const application of [one, two]) {
      for (const credential of credentials) {
        await until(async () => (await isRefused(application, credential)) === refused, `refused is ${refused}`);
      }
    }
  };
  await one.sql('UPDATE users SET suspended_at = now() WHERE id = $1', [session.userId]);
  await announce(`user:${session.userId}`);
  await all(true);
  await one.sql('UPDATE users SET suspended_at = NULL WHERE id = $1', [session.userId]);
  await announce(`owner:${session.ownerId}`);
  await all(false);
});

test('messages that are none of ours change nothing and end nothing', async () => {
  const { session } = await person();
  const { key } = await knownKey(session);
  const junk = [
    '',
    'x',
    '{',
    'null',
    '[]',
    '{"id":"x","tags":[]}',
    JSON.stringify({ id: randomUUID(), tags: ['admin:1'] }),
    JSON.stringify({ id: randomUUID(), tags: 'family:1' }),
    JSON.stringify({ id: randomUUID(), tags: Array(101).fill('family:1') }),
    JSON.stringify({ id: randomUUID(), tags: [{ __proto__: 1 }] }),
    JSON.stringify({ id: randomUUID(), tags: [], epochs: { o: -1 } }),
    JSON.stringify({ id: randomUUID(), tags: [], epochs: { o: '1' } }),
    JSON.stringify({
      id: randomUUID(),
      tags: [],
      epochs: Object.fromEntries(Array.from({ length: 21 }, (_, n) => [n, n])),
    }),
    '"'.repeat(7_000),
  ];
  const heardBefore = two.log.named('an invalidation could not be read').length;
  for (const payload of junk) {
    await notify(payload);
    await one.sql(`SELECT pg_notify('iora_acknowledge', $1)`, [payload]);
  }
  await one.sql(`SELECT pg_notify('iora_acknowledge', $1)`, [
    JSON.stringify({ id: randomUUID(), instance: randomUUID() }),
  ]);
  await until(
    () => two.log.named('an invalidation could not be read').length === heardBefore + junk.length,
    'all of it was heard',
  );
  await two.sql(`UPDATE api_keys SET is_active = false WHERE user_id = $1`, [session.userId]);
  assert.equal(await isRefused(two, key), false, 'still remembered');
  await announce(`owner:${session.ownerId}`);
  await until(() => isRefused(two, key), 'one of ours is still understood');
});

test('an instance that does not answer is not counted, and catches up when it is back', async () => {
  const { hostname, port } = new URL(database.apiUrl);
  const proxy = await startTcpProxy({ host: hostname, port: Number(port) });
  const deaf = await startApplication(database, { settings, secrets, directUrl: throughProxy(database.apiUrl, proxy) });
  const { session } = await person();
  const { id, key } = await knownKey(session, [one, two, deaf]);
  proxy.set('blackhole');
  const { effectiveOn, of, ms } = await revoke(one, session, id);
  assert.deepEqual([effectiveOn, of], [2, 3]);
  assert.ok(ms >= 1_900, 'it was waited for');
  assert.equal(await isRefused(two, key), true);
  assert.equal(await isRefused(deaf, key), false, 'it could not know');
  proxy.set('pass');
  await until(() => isRefused(deaf, key), 'it forgets what it may have missed');
  await deaf.close();
  await proxy.close();
  const next = await knownKey(session);
  const answer = await revoke(two, session, next.id);
  assert.deepEqual([answer.effectiveOn, answer.of], [2, 2], 'who said goodbye is not waited for');
});

test('while news may be missed nothing is believed for long, neither keys nor sessions', async () => {
  const { hostname, port } = new URL(database.apiUrl);
  const proxy = await startTcpProxy({ host: hostname, port: Number(port) });
  const deaf = await startApplication(database, { settings, secrets, directUrl: throughProxy(database.apiUrl, proxy) });
  const { email, session } = await person();
  const { key } = await knownKey(session, [deaf]);
  const token = await deaf.token(email);
  await deaf.bearer(token);
  proxy.set('reset');
  await until(() => !deaf.app.listening(), 'the loss is noticed');
  await one.sql('UPDATE users SET suspended_at = now() WHERE id = $1', [session.userId]);
  // The end of this wait is far below the minute for which both are believed otherwise.
  for (const credential of [key, token]) await until(() => isRefused(deaf, credential), 'it asks again by itself');
  await deaf.close();
  await proxy.close();
});

test('an instance whose listening connection was cut forgets all it remembers', async () => {
  const { session } = await person();
  const { key } = await knownKey(session);
  await one.sql('UPDATE api_keys SET is_active = false WHERE user_id = $1', [session.userId]);
  assert.equal(await isRefused(two, key), false);
  await one.sql(
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'iora-bus' AND datname = $1`,
    [database.name],
  );
  await until(() => isRefused(two, key), 'it connects anew and asks again');
  await until(() => one.app.listening() && two.app.listening(), 'both listen again');
});

test('a process that serves nobody revokes on all that serve, and is not one of them', async () => {
  const command = await startApplication(database, { settings, secrets, serves: false });
  const { session } = await person();
  const { id, key } = await knownKey(session);
  const { effectiveOn, of } = await revoke(command, session, id);
  assert.deepEqual([effectiveOn, of], [2, 2]);
  for (const application of [one, two]) assert.equal(await isRefused(application, key), true);
  await command.close();
});

test('rows from before an epoch that was heard of are not believed', async () => {
  const { session } = await person();
  const { id, key } = await knownKey(session);
  const [{ epoch }] = await one.sql('SELECT epoch FROM users WHERE id = $1', [session.ownerId]);
  const told = { tags: [`family:${id}`], epochs: { [session.ownerId]: Number(epoch) + 1 } };
  await notify(JSON.stringify({ id: randomUUID(), ...told }));
  const outcome = () =>
    two.bearer(key).then(
      () => 'accepted',
      (error: { code?: string }) => error.code,
    );
  await until(async () => (await outcome()) === 'unavailable', 'the row is too old');
  await one.output('keys.update', session, { id, name: 'newer' });
  await until(async () => (await outcome()) === 'accepted', 'the row has that epoch');
});

test('a change of much goes out in as many messages as it takes, and holds where all of them were heard', async () => {
  const { session } = await person();
  const { id, key } = await knownKey(session);
  const [{ instance }] = await one.sql('SELECT id AS instance FROM instances LIMIT 1');
  const invalidations = createInvalidations({
    database: one.app.database,
    redis: null,
    caches: [],
    instanceId: null,
    liveInstances: async () => [instance],
    log: one.log,
  });
  await one.sql('UPDATE api_key_families SET revoked_at = now(), revoked_by = $2 WHERE id = $1', [id, 'test']);
  const tags = Array.from({ length: 60 }, (_, number) => `session:${number} ${'x'.repeat(240)}` as const);
  const ids = await one.sql('SELECT id FROM users');
  const change = { ownerIds: ids.map((row) => row.id as string), tags: [...tags, `family:${id}` as const] };
  const heard: string[] = [];
  const listener = openBus({
    connection: parseConnection(database.apiUrl),
    channels: {
      iora_invalidate: (payload) => heard.push(payload),
      iora_acknowledge: (payload) => invalidations.channels.postgres['iora_acknowledge']?.(payload),
    },
    onConnect: () => undefined,
    connectionTimeoutMs: 5_000,
    applicationName: 'listener',
  });
  await until(() => listener.connected, 'it listens');
  const announcement = await one.app.database.call((tx) => invalidations.announce(tx, change));
  const { effectiveOn, of } = await announcement.settle();
  assert.deepEqual([effectiveOn, of], [1, 1]);
  assert.equal(heard.length, 4);
  assert.equal(new Set(heard.flatMap((payload) => JSON.parse(payload).tags)).size, 61);
  assert.equal(await isRefused(one, key), true);
  await listener.close();
});

test('a revocation that is rolled back is not announced', async () => {
  const { session } = await person();
  const { id, key } = await knownKey(session);
  await one.sql(`CREATE FUNCTION refuse_audit() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no audit''; END';
    CREATE TRIGGER refuse_audit BEFORE INSERT ON audit_logs FOR EACH ROW WHEN (NEW.outcome = 'succeeded') EXECUTE FUNCTION refuse_audit()`);
  try {
    const outcome = await one.call('keys.revoke', session, { id });
    assert.ok(!outcome.ok && outcome.error.code === 'internal');
  } finally {
    await one.sql('DROP TRIGGER refuse_audit ON audit_logs; DROP FUNCTION refuse_audit()');
  }
  for (const application of [one, two]) assert.equal(await isRefused(application, key), false);
});

test('what is committed is answered, also when the database is gone right after', async () => {
  const own = openDatabase({
    connection: parseConnection(database.apiUrl),
    poolMin: 0,
    poolMax: 1,
    connectionTimeoutMs: 5_000,
    applicationName: 'test',
  });
  const instanceId = randomUUID();
  const invalidations = createInvalidations({
    database: own,
    redis: null,
    caches: [],
    instanceId,
    liveInstances: async () => [instanceId, randomUUID()],
    log: one.log,
  });
  const announcement = await own.call((tx) => invalidations.announce(tx, { ownerIds: [], tags: ['family:f'] }));
  await own.close();
  const { effectiveOn, of } = await announcement.settle();
  assert.deepEqual([effectiveOn, of], [1, 2]);
});

test('live instances are read within the change itself', async () => {
  const asked: unknown[] = [];
  const invalidations = createInvalidations({
    database: one.app.database,
    redis: null,
    caches: [],
    instanceId: null,
    liveInstances: async (tx) => {
      asked.push(tx);
      return [];
    },
    log: one.log,
  });
  await one.app.database.call(async (tx) => {
    await invalidations.announce(tx, { ownerIds: [], tags: ['family:f'] });
    assert.deepEqual(asked, [tx]);
  });
});
