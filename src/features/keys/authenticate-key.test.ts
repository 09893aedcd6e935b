import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, test } from 'node:test';
import { startApplication, type TestApplication, testSecrets } from '../../../test/support/application.ts';
import { type TestCluster, type TestDatabase, testCluster, withClient } from '../../../test/support/postgres.ts';
import { AppError, toProblem } from '../../kernel/errors.ts';
import { generateKey } from '../../lib/key-format.ts';
import { createKeyAuthenticator, createPrincipalCache } from './index.ts';

let cluster: TestCluster;
let database: TestDatabase;
let iora: TestApplication;
before(async () => {
  cluster = await testCluster();
  database = await cluster.database();
  iora = await startApplication(database);
});
after(async () => {
  await iora.close();
  await cluster.stop();
});

let people = 0;
async function makeKey(application = iora): Promise<{ id: string; key: string; ownerId: string }> {
  people += 1;
  const session = await application.session(`person-${people}@example.com`);
  const made = await application.output<{ id: string; key: string }>('keys.create', session, { name: 'a key' });
  return { ...made, ownerId: session.ownerId };
}

/** The application's own parts put together anew, so that questions to the database can be counted. */
function counting() {
  const { secrets } = iora;
  const count = { transactions: 0, touched: [] as string[] };
  // Each method of the pool is one transaction.
  const wrapped = new Proxy(iora.app.database, {
    get(real, name) {
      count.transactions += 1;
      return Reflect.get(real, name);
    },
  });
  const authenticate = createKeyAuthenticator({
    database: wrapped,
    peppers: secrets.peppers,
    cache: createPrincipalCache({
      entriesMax: 100,
      freshMs: () => 60_000,
      outageGraceMs: 0,
      monotonicMs: () => performance.now(),
      wallClockMs: () => Date.now(),
    }),
    use: { touch: ({ secretId }) => count.touched.push(secretId) },
    log: iora.log,
  });
  return { authenticate: async (key: string) => authenticate(key, '192.0.2.1'), count };
}

/** The public face of a refusal. */
async function refusal(attempt: Promise<unknown>): Promise<unknown> {
  const thrown = await attempt.then(
    () => assert.fail('it was accepted'),
    (error: unknown) => error,
  );
  assert.ok(thrown instanceof AppError);
  return toProblem(thrown, 'r');
}

test('what has not the shape or the checksum of a key is refused without asking the database', async () => {
  const { authenticate, count } = counting();
  const { key } = await makeKey();
  const flipped = (at: number) => `${key.slice(0, at)}${key[at] === 'x' ? 'y' : 'x'}${key.slice(at + 1)}`;
  const wrong = [
    flipped(key.length - 1),
    flipped(20),
    flipped(13),
    key.slice(0, -1),
    `${key}0`,
    ` ${key}`,
    key.replace('live', 'test'),
    'iora_pk_live_',
    '',
    key.toUpperCase(),
  ];
  const bodies = new Set<string>();
  for (const text of wrong) bodies.add(JSON.stringify(await refusal(authenticate(text))));
  assert.equal(count.transactions, 0);
  bodies.add(JSON.stringify(await refusal(authenticate(generateKey('live')))));
  assert.equal(count.transactions, 1, 'only the one that could be a key was looked up');
  assert.equal(bodies.size, 1, 'all refusals read the same');
});

test('a key that nobody made is looked up once, then refused from memory', async () => {
  const { authenticate, count } = counting();
  const key = generateKey('live');
  for (let attempt = 0; attempt < 5; attempt += 1) await refusal(authenticate(key));
  assert.equal(count.transactions, 1);
  assert.deepEqual(count.touched, []);
});

test('many first calls with one key make one look-up, later ones none; each is counted as a use', async () => {
  const { authenticate, count } = counting();
  const { key, id } = await makeKey();
  const principals = await Promise.all(Array.from({ length: 50 }, () => authenticate(key)));
  assert.equal(new Set(principals).size, 1);
  assert.equal(principals[0]?.key?.id, id);
  await authenticate(key);
  assert.equal(count.transactions, 1);
  assert.equal(count.touched.length, 51);
  assert.deepEqual(new Set(count.touched), new Set([principals[0]?.key?.secretId]));
});

test('unknown, revoked and expired keys and those of suspended owners are refused in the same words', async () => {
  const { authenticate } = counting();
  const keys = await Promise.all([makeKey(), makeKey(), makeKey(), makeKey()]);
  const [revoked, expired, suspended, closed] = keys;
  await iora.sql(`UPDATE api_key_families SET revoked_at = now() WHERE id = $1`, [revoked.id]);
  await iora.sql(`UPDATE api_key_families SET expires_at = now() WHERE id = $1`, [expired.id]);
  await iora.sql(`UPDATE users SET suspended_at = now() WHERE id = $1`, [suspended.ownerId]);
  await iora.sql(`UPDATE users SET is_active = false WHERE id = $1`, [closed.ownerId]);
  const unknown = await refusal(authenticate(generateKey('live')));
  for (const { key } of keys) assert.deepEqual(await refusal(authenticate(key)), unknown);
});

test('uses are counted in the table when they are written, in the end at the latest', async () => {
  const own = await startApplication(database);
  const { key, id } = await makeKey(own);
  for (let use = 0; use < 7; use += 1) await own.bearer(key);
  await own.close();
  const [row] = await iora.sql(`SELECT usage_count::int AS uses, last_used_at FROM api_keys WHERE family_id = $1`, [
    id,
  ]);
  assert.equal(row.uses, 7);
  assert.ok(row.last_used_at instanceof Date);
});

test('a key of an older pepper works, and moves to the newest when it is shown', async () => {
  const secrets = testSecrets();
  const [one] = secrets.peppers;
  const two = { version: 2, secret: randomBytes(32) };
  const withPeppers = (...peppers: [typeof one, ...(typeof one)[]]) =>
    startApplication(database, { secrets: { ...secrets, peppers } });
  const versions = async (id: string) =>
    (await iora.sql('SELECT pepper_version AS version FROM api_keys WHERE family_id = $1', [id])).map(
      (row) => row.version,
    );

  const before = await withPeppers(one);
  const [shown, unseen] = [await makeKey(before), await makeKey(before)];
  await before.close();

  const during = await withPeppers(two, one);
  const fresh = await makeKey(during);
  for (const { key, id } of [shown, fresh, shown]) assert.equal((await during.bearer(key)).key?.id, id);
  assert.deepEqual([await versions(shown.id), await versions(unseen.id), await versions(fresh.id)], [[2], [1], [2]]);
  await refusal(during.bearer(generateKey('test')));
  await during.close();

  const later = await withPeppers(two);
  for (const { key, id } of [shown, fresh]) assert.equal((await later.bearer(key)).key?.id, id);
  await refusal(later.bearer(unseen.key));
  await later.close();
});

test('a key that cannot be moved to the newest pepper works all the same, and moves with a later call', async () => {
  const own = await cluster.database();
  const secrets = testSecrets();
  const [one] = secrets.peppers;
  const two = { version: 2, secret: randomBytes(32) };
  const before = await startApplication(own, { secrets });
  const [locked, denied] = [await makeKey(before), await makeKey(before)];
  await before.close();
  const settings = { KEY_CACHE_TTL: '0' };
  const during = await startApplication(own, { settings, secrets: { ...secrets, peppers: [two, one] } });
  const version = async (id: string) =>
    (await during.sql('SELECT pepper_version AS version FROM api_keys WHERE family_id = $1', [id]))[0].version;

  await withClient(own.superuserUrl, async (holder) => {
    await holder.query('BEGIN');
    await holder.query('SELECT FROM api_keys WHERE family_id = $1 FOR UPDATE', [locked.id]);
    assert.equal((await during.bearer(locked.key)).key?.id, locked.id);
    assert.equal(await version(locked.id), 1);
    await holder.query('ROLLBACK');
  });
  await during.sql('REVOKE UPDATE (key_hash) ON api_keys FROM iora_api');
  assert.equal((await during.bearer(denied.key)).key?.id, denied.id);
  const [warning] = during.log.named('a key could not be moved to the newest pepper');
  assert.ok(warning?.includes(denied.id) && !warning.includes(denied.key));
  await during.sql('GRANT UPDATE (key_hash) ON api_keys TO iora_api');
  for (const { id, key } of [locked, denied]) {
    await during.bearer(key);
    assert.equal(await version(id), 2);
  }
  await during.close();
  await own.drop();
});

test('an instance that still has an older pepper in front moves no key back to it', async () => {
  const secrets = testSecrets();
  const [one] = secrets.peppers;
  const two = { version: 2, secret: randomBytes(32) };
  const switched = await startApplication(database, { secrets: { ...secrets, peppers: [two, one] } });
  const { id, key } = await makeKey(switched);
  const waiting = await startApplication(database, { secrets: { ...secrets, peppers: [one, two] } });
  assert.equal((await waiting.bearer(key)).key?.id, id);
  const [row] = await iora.sql('SELECT pepper_version AS version FROM api_keys WHERE family_id = $1', [id]);
  assert.equal(row.version, 2);
  await waiting.close();
  await switched.close();
});
