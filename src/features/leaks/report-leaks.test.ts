import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import { testSecrets, until } from '../../../test/support/application.ts';
import {
  type HttpApplication,
  signedBy,
  startHttpApplication,
  type TestSigner,
} from '../../../test/support/http-application.ts';
import { type TestCluster, type TestDatabase, testCluster, withClient } from '../../../test/support/postgres.ts';
import type { Principal } from '../../kernel/context.ts';
import { generateKey } from '../../lib/key-format.ts';
import { hashKey } from '../../lib/key-hash.ts';

const scanner: TestSigner = { keyId: 'scan-1', secret: randomBytes(32) };
const secrets = { ...testSecrets(), peppers: [pepper(2), pepper(1)] as const };
function pepper(version: number) {
  return { version, secret: randomBytes(32) };
}

let cluster: TestCluster;
let database: TestDatabase;
/** Two instances that restrict and one that revokes, on one database. */
let restricting: HttpApplication;
let elsewhere: HttpApplication;
let revoking: HttpApplication;
before(async () => {
  cluster = await testCluster();
  database = await cluster.database();
  const SERVICE_SECRETS = `scanner:${scanner.keyId}:${scanner.secret.toString('base64')}`;
  // Long enough that only the news, never the end of an entry's life, can have cut a key off.
  const settings = { SERVICE_SECRETS, KEY_CACHE_TTL: '60' };
  restricting = await startHttpApplication(database, { settings, secrets });
  elsewhere = await startHttpApplication(database, { settings, secrets });
  revoking = await startHttpApplication(database, { settings: { ...settings, LEAKED_KEYS: 'revoke' }, secrets });
});
after(async () => {
  for (const instance of [restricting, elsewhere, revoking]) await instance.close();
  await cluster.stop();
});

interface Report {
  readonly results: readonly { state: string }[];
  readonly effectiveOn: number;
  readonly of: number;
  readonly ms: number;
}

async function post(instance: HttpApplication, input: unknown, headers?: Record<string, string>) {
  const body = JSON.stringify(input);
  const answer = await fetch(`${instance.url}/leaks`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...(headers ?? signedBy(scanner, { target: '/leaks', body })) },
    body,
  });
  return { status: answer.status, body: (await answer.json()) as Record<string, unknown> };
}

async function report(instance: HttpApplication, keys: readonly string[], source?: string): Promise<Report> {
  const { status, body } = await post(instance, { keys, ...(source === undefined ? {} : { source }) });
  assert.equal(status, 200, JSON.stringify(body));
  return body as unknown as Report;
}

const statesOf = ({ results }: Report) => results.map(({ state }) => state);

interface MadeKey {
  readonly id: string;
  readonly key: string;
}

async function newOwner(): Promise<Principal> {
  return restricting.iora.session(`${randomUUID()}@example.com`, `t-${randomUUID()}`);
}

const newKey = (owner: Principal) => restricting.iora.output<MadeKey>('keys.create', owner, { name: 'k' });

/** What a call with that key is answered on an instance: its status and why. */
async function useOn(instance: HttpApplication, key: string): Promise<readonly [number, string]> {
  const answer = await fetch(`${instance.url}/tools/get_price`, {
    method: 'POST',
    headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
    body: '{"symbol":"BTC"}',
  });
  const body = (await answer.json()) as { detail?: string };
  return [answer.status, body.detail ?? ''];
}

const statusOn = async (instance: HttpApplication, key: string) => (await useOn(instance, key))[0];

const secretsOf = (id: string) =>
  restricting.iora.sql(
    `SELECT k.is_active AS active, k.leaked_at IS NOT NULL AS leaked, k.revoked_at IS NOT NULL AS revoked,
            f.revoked_at IS NOT NULL AS "familyRevoked"
     FROM api_keys k JOIN api_key_families f ON f.id = k.family_id WHERE k.family_id = $1 ORDER BY k.created_at, k.id`,
    [id],
  );

/** What the owner of a key is told: its audit rows and the events that go out, without ids and times. */
async function told(owner: Principal, id: string) {
  const audit = await restricting.iora.sql(
    `SELECT user_id, org_id, actor_type, actor_id, resource_type, outcome, changes FROM audit_logs
     WHERE owner_id = $1 AND action = 'api_key_leaked' AND resource_id = $2 ORDER BY created_at`,
    [owner.ownerId, id],
  );
  const events = await restricting.iora.sql(
    `SELECT topic, payload FROM outbox_events WHERE owner_id = $1 AND payload ->> 'keyId' = $2 ORDER BY created_at`,
    [owner.ownerId, id],
  );
  return { audit, events };
}

test('a leaked key is known and allowed nothing on every instance as soon as the report is answered', async () => {
  const owner = await newOwner();
  const [leaked, spared] = [await newKey(owner), await newKey(owner)];
  const instances = [restricting, elsewhere, revoking];
  for (const instance of instances) assert.equal(await statusOn(instance, leaked.key), 200);
  const answer = await report(restricting, [leaked.key], 'https://example.com/paste/1');
  for (const instance of instances) {
    const [status, detail] = await useOn(instance, leaked.key);
    assert.equal(status, 403);
    assert.equal(detail, 'This key was found in public and cut off. Rotate it, and use the new secret.');
    assert.equal(await statusOn(instance, spared.key), 200, 'another key of the owner goes on');
  }
  assert.deepEqual(statesOf(answer), ['restricted']);
  assert.deepEqual([answer.effectiveOn, answer.of], [3, 3]);
  assert.deepEqual(Object.keys(answer).sort(), ['effectiveOn', 'ms', 'of', 'results'], 'nothing about the owner');
  assert.deepEqual(await secretsOf(leaked.id), [{ active: true, leaked: true, revoked: false, familyRevoked: false }]);
});

test('with LEAKED_KEYS=revoke the secret ends, and its family goes on with the others', async () => {
  const owner = await newOwner();
  const leaked = await newKey(owner);
  const successor = generateKey('live');
  await restricting.iora.sql(
    `INSERT INTO api_keys (family_id, user_id, org_id, key_hash, pepper_version, key_prefix)
     VALUES ($1, $2, $3, $4, 2, 'iora_pk_live_next')`,
    [leaked.id, owner.userId, owner.orgId, hashKey(successor, secrets.peppers[0].secret)],
  );
  for (const key of [leaked.key, successor]) assert.equal(await statusOn(elsewhere, key), 200);
  assert.deepEqual(statesOf(await report(revoking, [leaked.key])), ['revoked']);
  assert.deepEqual([await statusOn(elsewhere, leaked.key), await statusOn(elsewhere, successor)], [401, 200]);
  assert.deepEqual(await secretsOf(leaked.id), [
    { active: false, leaked: true, revoked: true, familyRevoked: false },
    { active: true, leaked: false, revoked: false, familyRevoked: false },
  ]);
});

test('the owner is told once, without the key, however often and by however many it is reported', async () => {
  const owner = await newOwner();
  const { id, key } = await newKey(owner);
  const reports = await Promise.all(
    Array.from({ length: 6 }, (_, index) => report(index % 2 === 0 ? restricting : elsewhere, [key, key], 'a paste')),
  );
  for (const answer of reports) assert.deepEqual(statesOf(answer), ['restricted', 'restricted']);
  const row = await restricting.iora.sql('SELECT * FROM api_keys WHERE family_id = $1', [id]);
  assert.deepEqual(statesOf(await report(restricting, [key], 'another paste')), ['restricted']);
  assert.deepEqual(await restricting.iora.sql('SELECT * FROM api_keys WHERE family_id = $1', [id]), row);

  const { audit, events } = await told(owner, id);
  const facts = { secretId: row[0].id, keyPrefix: key.slice(0, 17), state: 'restricted', source: 'a paste' };
  assert.deepEqual(audit, [
    {
      user_id: null,
      org_id: owner.orgId,
      actor_type: 'system',
      actor_id: null,
      resource_type: 'api_key',
      outcome: 'succeeded',
      changes: facts,
    },
  ]);
  assert.deepEqual(events, [{ topic: 'api_key.leaked', payload: { keyId: id, ...facts } }]);
  assert.ok(!JSON.stringify({ audit, events }).includes(key.slice(20)));

  assert.deepEqual(statesOf(await report(revoking, [key])), ['revoked'], 'ending what was restricted is news again');
  assert.deepEqual(statesOf(await report(revoking, [key])), ['revoked']);
  assert.deepEqual(statesOf(await report(restricting, [key])), ['revoked'], 'what is ended stays so');
  const after = await told(owner, id);
  assert.deepEqual(
    after.audit.map((entry) => entry.changes.state),
    ['restricted', 'revoked'],
  );
  assert.equal(after.events.length, 2);
});

test('the report itself is on the books of the service that made it, with numbers and no key', async () => {
  const owner = await newOwner();
  const { key } = await newKey(owner);
  const source = `paste ${randomUUID()}`;
  await report(restricting, [key, generateKey('live'), 'no key'], source);
  const rows = await restricting.iora.sql(
    `SELECT owner_id, actor_type, actor_id, outcome, changes FROM audit_logs
     WHERE action = 'leaks_reported' AND changes ->> 'source' = $1`,
    [source],
  );
  assert.deepEqual(rows, [
    {
      owner_id: 'service_scanner',
      actor_type: 'service',
      actor_id: 'scanner',
      outcome: 'succeeded',
      changes: { source, restricted: 1, revoked: 0, unknown: 2 },
    },
  ]);
  const lines = [restricting, elsewhere, revoking].flatMap(({ iora }) => iora.log.lines());
  for (const line of lines) assert.ok(!line.includes(key.slice(20)), line);
});

test('keys are answered in order, whatever they are: of many owners, made up, mistyped, ended before', async () => {
  const [one, two] = [await newOwner(), await newOwner()];
  const [first, second, ended] = [await newKey(one), await newKey(two), await newKey(two)];
  await restricting.iora.output('keys.revoke', two, { id: ended.id });
  const mistyped = `${first.key.slice(0, -1)}${first.key.endsWith('0') ? '1' : '0'}`;
  const answer = await report(restricting, [
    generateKey('live'),
    second.key,
    mistyped,
    ended.key,
    first.key,
    'ghp_0123456789',
    ` ${first.key}`,
  ]);
  const states = ['unknown', 'restricted', 'unknown', 'revoked', 'restricted', 'unknown', 'unknown'];
  assert.deepEqual(statesOf(answer), states);
  for (const { key } of [first, second]) assert.equal(await statusOn(elsewhere, key), 403);
  assert.equal((await told(two, ended.id)).audit[0]?.changes.state, 'revoked');

  const nothing = await report(restricting, [generateKey('test'), 'x']);
  assert.deepEqual(
    { ...nothing, ms: 0 },
    { results: [{ state: 'unknown' }, { state: 'unknown' }], effectiveOn: 0, of: 0, ms: 0 },
  );
});

test('as many keys as a report may hold are cut off by one', async () => {
  const owners = await Promise.all(Array.from({ length: 20 }, newOwner));
  const made = await Promise.all(owners.flatMap((owner) => Array.from({ length: 5 }, () => newKey(owner))));
  const keys = made.map(({ key }) => key);
  const answer = await report(restricting, keys);
  assert.ok(answer.results.length === 100 && answer.results.every(({ state }) => state === 'restricted'));
  assert.deepEqual([answer.effectiveOn, answer.of], [3, 3]);
  for (const key of keys) assert.equal(await statusOn(elsewhere, key), 403);
});

test('keys are locked in the order of their secrets, as by everybody else, whatever their text', async () => {
  const owner = await newOwner();
  let [first, second] = [await newKey(owner), await newKey(owner)];
  // Keys are random: of every other pair the later one sorts before.
  while (second.key > first.key) {
    await restricting.iora.output('keys.revoke', owner, { id: first.id });
    [first, second] = [second, await newKey(owner)];
  }
  await withClient(database.superuserUrl, async (holder) => {
    await holder.query('BEGIN');
    await holder.query('SELECT FROM api_keys WHERE family_id = $1 FOR UPDATE', [first.id]);
    const reporting = report(restricting, [second.key, first.key]);
    await until(async () => {
      const [row] = await restricting.iora.sql(
        `SELECT count(*)::int AS n FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%report_leaked_key%'`,
      );
      return row.n === 1;
    }, 'the report waits');
    await holder.query('SELECT FROM api_keys WHERE family_id = $1 FOR UPDATE NOWAIT', [second.id]);
    await holder.query('ROLLBACK');
    assert.deepEqual(statesOf(await reporting), ['restricted', 'restricted']);
  });
});

test('a key is found under an older pepper too', async () => {
  const owner = await newOwner();
  const { id, key } = await newKey(owner);
  await restricting.iora.sql('UPDATE api_keys SET key_hash = $2, pepper_version = 1 WHERE family_id = $1', [
    id,
    hashKey(key, secrets.peppers[1].secret),
  ]);
  assert.deepEqual(statesOf(await report(restricting, [key])), ['restricted']);
  assert.equal(await statusOn(elsewhere, key), 403);
});

test('only services report: keys and sessions are refused, and change nothing', async () => {
  const owner = await newOwner();
  const { id, key } = await newKey(owner);
  const slug = (await restricting.iora.sql('SELECT slug FROM organizations WHERE id = $1', [owner.ownerId]))[0].slug;
  const session = await restricting.iora.token(`admin@${slug}.example.com`, slug, true);
  for (const credential of [key, session]) {
    const { status, body } = await post(restricting, { keys: [key] }, { authorization: `Bearer ${credential}` });
    assert.deepEqual([status, body['code']], [403, 'forbidden']);
  }
  assert.equal((await post(restricting, { keys: [key] }, {})).status, 401);
  assert.equal(await statusOn(restricting, key), 200);
  assert.deepEqual(await told(owner, id), { audit: [], events: [] });
});

test('what is no report is refused, and nothing of it is done', async () => {
  const owner = await newOwner();
  const { key } = await newKey(owner);
  for (const input of [
    {},
    { keys: [] },
    { keys: key },
    { keys: [''] },
    { keys: [key, 7] },
    { keys: [key, 'x'.repeat(201)] },
    { keys: [...Array.from({ length: 100 }, () => 'x'), key] },
    { keys: [key], source: '' },
    { keys: [key], source: 'x'.repeat(501) },
    { keys: [key], source: 'a\u0000b' },
    { keys: [key], source: '\ud800' },
    { keys: [key], other: true },
  ]) {
    const { status, body } = await post(restricting, input);
    assert.deepEqual([status, body['code']], [400, 'invalid_input'], JSON.stringify(input).slice(0, 100));
    assert.ok(!JSON.stringify(body).includes(key.slice(20)), 'a refusal never repeats a key');
  }
  await until(async () => (await statusOn(restricting, key)) === 200, 'the key still works');
});

test('a cut off key learns why and nothing else, takes nothing from its owner’s other keys, and can be revoked', async () => {
  const owner = await newOwner();
  const [{ id, key }, other] = [await newKey(owner), await newKey(owner)];
  await report(restricting, [key]);
  const found = await restricting.iora.bearer(key);
  for (const operation of ['keys.current', 'market.list_symbols', 'keys.list']) {
    const outcome = await restricting.iora.call(operation, found);
    assert.ok(
      !outcome.ok && outcome.error.code === 'forbidden' && /found in public/.test(outcome.error.message),
      operation,
    );
  }
  assert.equal(await statusOn(restricting, other.key), 200);
  await restricting.iora.output('keys.revoke', owner, { id });
  assert.equal(await statusOn(elsewhere, key), 401);
});

test('a report stands for nobody: a service that names a tenant is refused', async () => {
  const owner = await newOwner();
  const { id, key } = await newKey(owner);
  const principal = {
    ...(await restricting.iora.bearer(key)),
    kind: 'service' as const,
    key: null,
    service: 'scanner',
  };
  const outcome = await restricting.iora.call('leaks.report', principal, { keys: [key] });
  assert.ok(!outcome.ok && outcome.error.code === 'forbidden');
  assert.deepEqual(await told(owner, id), { audit: [], events: [] });
});
