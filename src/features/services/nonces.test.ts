import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { sql } from 'kysely';
import {
  credentialsOf,
  startApplication,
  type TestApplication,
  testSecrets,
  until,
} from '../../../test/support/application.ts';
import { type TestCluster, testCluster, withClient } from '../../../test/support/postgres.ts';
import { ownRedis, withoutRedis } from '../../../test/support/redis.ts';
import { signedHeaders } from '../../lib/service-signature.ts';
import { runJob } from '../../main/jobs.ts';
import { createPostgresNonces } from './index.ts';

let cluster: TestCluster;
let iora: TestApplication;
let apiUrl: string;
before(async () => {
  cluster = await testCluster();
  const database = await cluster.database();
  ({ apiUrl } = database);
  // It serves nobody, so that no job runs but when a test says so.
  iora = await startApplication(database, { serves: false });
});
after(async () => {
  await iora.close();
  await cluster.stop();
});

const NONCE = 'n'.repeat(16);

test('a nonce is claimed once by a key id, by whichever of many at once', async () => {
  const nonces = createPostgresNonces(iora.app.database);
  const claims = await Promise.all(Array.from({ length: 20 }, () => nonces.claim('k1', NONCE, Date.now() + 60_000)));
  assert.equal(claims.filter((claimed) => claimed).length, 1);
  assert.equal(await nonces.claim('k1', NONCE, Date.now() + 60_000), false);
  assert.equal(await nonces.claim('k2', NONCE, Date.now() + 60_000), true, 'another key id has nonces of its own');
});

test('the service can add nonces and do nothing else with them', async () => {
  await withClient(apiUrl, async (client) => {
    for (const statement of [
      'SELECT * FROM service_nonces',
      'SELECT count(*) FROM service_nonces',
      'UPDATE service_nonces SET expires_at = now()',
      'DELETE FROM service_nonces',
      'TRUNCATE service_nonces',
      `INSERT INTO service_nonces VALUES ('k', '${NONCE}', now()) ON CONFLICT (key_id, nonce) DO UPDATE SET expires_at = now()`,
    ]) {
      await assert.rejects(client.query(statement), { code: '42501' }, statement);
    }
  });
});

test('nonces that have expired are forgotten, in bounded rounds, the oldest first, and the others kept', async () => {
  const job = iora.app.jobs.find(({ name }) => name === 'services.forget_nonces') ?? assert.fail();
  const parts = { database: iora.app.database, wallClockMs: Date.now };
  await iora.sql('DELETE FROM service_nonces');
  await iora.sql(
    `INSERT INTO service_nonces SELECT 'k', 'nonce-' || lpad(n::text, 12, '0'), now() + interval '1 second' * (n - 20.5)
     FROM generate_series(1, 40) n`,
  );
  const left = async () => (await iora.sql('SELECT count(*)::int AS n FROM service_nonces'))[0].n;
  await iora.app.database.call(async (tx) => {
    const { rows } = await sql<{ n: number }>`select forget_service_nonces(15) as n`.execute(tx);
    assert.deepEqual(rows, [{ n: 15 }]);
  });
  const [{ oldest }] = await iora.sql('SELECT min(nonce) AS oldest FROM service_nonces');
  assert.equal(oldest, 'nonce-000000000016');
  const counts = await runJob(parts, job);
  assert.ok((counts?.['forgotten'] ?? 0) >= 5, JSON.stringify(counts));
  assert.ok((await left()) <= 20 && (await left()) > 0);
  await iora.sql(`UPDATE service_nonces SET expires_at = now() + interval '1 hour'`);
  assert.deepEqual(await runJob(parts, job), {}, 'a round with nothing to do does nothing');
});

test('with Redis a signed call passes once over all instances, and with Redis away not at all', {
  skip: await withoutRedis('own'),
}, async () => {
  const redis = await ownRedis();
  const settings = {
    SERVICE_SECRETS: `agent:k1:${Buffer.alloc(32, 7).toString('base64')}`,
    REDIS_URL: redis.url,
    REDIS_PREFIX: redis.prefix,
  };
  const database = await cluster.database();
  const secrets = testSecrets();
  const instances = [
    await startApplication(database, { settings, secrets }),
    await startApplication(database, { settings, secrets }),
  ];
  const connected = () => instances.every(({ app }) => app.redis?.connected === true);
  await until(connected, 'both are connected to Redis');
  const call = () => {
    const secret = Buffer.alloc(32, 7);
    return credentialsOf(signedHeaders({ keyId: 'k1', secret, method: 'GET', target: '/' }, Date.now()));
  };

  const one = call();
  const answers = await Promise.allSettled(
    Array.from({ length: 10 }, async (_, index) => instances[index % 2]?.app.authenticate(one)),
  );
  assert.equal(answers.filter(({ status }) => status === 'fulfilled').length, 1);
  const rejected = answers.flatMap((answer) => (answer.status === 'rejected' ? [answer.reason.code] : []));
  assert.deepEqual([...new Set(rejected)], ['unauthenticated']);
  assert.deepEqual(await instances[0]?.sql('SELECT FROM service_nonces'), [], 'PostgreSQL was left alone');

  await redis.kill();
  await assert.rejects(async () => instances[0]?.app.authenticate(call()), { code: 'unavailable' });
  await redis.restart();
  await until(connected, 'both are connected again');
  assert.equal((await instances[0]?.app.authenticate(call()))?.service, 'agent');
  for (const { close } of instances) await close();
  await redis.stop();
});
