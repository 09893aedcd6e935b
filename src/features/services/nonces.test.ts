import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { sql } from 'kysely';
import { startApplication, type TestApplication } from '../../../test/support/application.ts';
import { type TestCluster, testCluster, withClient } from '../../../test/support/postgres.ts';
import { runJob } from '../../main/jobs.ts';
import { createPostgresNonces, createRedisNonces } from './index.ts';

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

test('in Redis the key is set once with its end; with Redis away nothing is accepted', async () => {
  const set = new Map<string, number>();
  const nonces = createRedisNonces(
    {
      async setOnce(key, expiresAtMs) {
        if (set.has(key)) return false;
        set.set(key, expiresAtMs);
        return true;
      },
    },
    'iora:',
  );
  assert.equal(await nonces.claim('k1', NONCE, 1_767_225_600_000), true);
  assert.equal(await nonces.claim('k1', NONCE, 1_767_225_600_000), false);
  assert.deepEqual([...set], [[`iora:nonce:k1:${NONCE}`, 1_767_225_600_000]]);
  const away = createRedisNonces({ setOnce: () => Promise.reject(new Error('connection is closed')) }, 'iora:');
  await assert.rejects(away.claim('k1', NONCE, 0), { code: 'unavailable' });
});
