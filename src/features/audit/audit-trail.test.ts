import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import { startApplication, type TestApplication } from '../../../test/support/application.ts';
import { type TestCluster, type TestDatabase, testCluster } from '../../../test/support/postgres.ts';
import type { Call, Principal } from '../../kernel/context.ts';
import { createAuditTrail, REFUSALS_PER_MINUTE_MAX } from './audit-trail.ts';

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
function person(org?: string): Promise<Principal> {
  people += 1;
  return iora.session(`person-${people}@example.com`, org);
}

interface Created {
  readonly id: string;
  readonly key: string;
}
const create = (who: Principal, input = {}) => iora.output<Created>('keys.create', who, { name: 'a key', ...input });
const code = async (name: string, who: Principal, input?: unknown) => {
  const outcome = await iora.call(name, who, input);
  return outcome.ok ? 'ok' : outcome.error.code;
};
const rowsOf = (who: Principal, columns: string) =>
  iora.sql(`SELECT ${columns} FROM audit_logs WHERE owner_id = $1 ORDER BY created_at, id`, [who.ownerId]);

test('a row says who did what to what, from where, and how it ended', async () => {
  const alice = await person();
  const { id, key } = await create(alice, { permissions: ['keys:write'] });
  const byKey = await iora.bearer(key);
  const requestId = randomUUID();
  await iora.call(
    'keys.update',
    byKey,
    { id, name: 'renamed' },
    { requestId, ipAddress: '2001:db8::1', userAgent: 'probe/1' },
  );
  const [created, updated] = await rowsOf(alice, '*');
  assert.deepEqual(
    [created.actor_type, created.actor_id, created.action, created.outcome, created.user_id, created.org_id],
    ['session', alice.userId, 'api_key_created', 'succeeded', alice.userId, null],
  );
  const { id: _id, created_at: _at, ...rest } = updated;
  assert.deepEqual(rest, {
    user_id: alice.userId,
    org_id: null,
    owner_id: alice.ownerId,
    actor_type: 'api_key',
    actor_id: id,
    action: 'api_key_updated',
    resource_type: 'api_key',
    resource_id: id,
    outcome: 'succeeded',
    error_code: null,
    request_id: requestId,
    ip_address: '2001:db8::1',
    user_agent: 'probe/1',
    changes: { before: { name: 'a key' }, after: { name: 'renamed' } },
  });
});

test('a change whose audit row cannot be written does not happen', async () => {
  const alice = await person();
  const { id } = await create(alice);
  await iora.sql(`CREATE FUNCTION refuse_audit() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no audit''; END';
    CREATE TRIGGER refuse_audit BEFORE INSERT ON audit_logs FOR EACH ROW WHEN (NEW.outcome = 'succeeded') EXECUTE FUNCTION refuse_audit()`);
  try {
    assert.equal(await code('keys.create', alice, { name: 'x' }), 'internal');
    assert.equal(await code('keys.update', alice, { id, name: 'x' }), 'internal');
    assert.equal(await code('keys.revoke', alice, { id }), 'internal');
  } finally {
    await iora.sql('DROP TRIGGER refuse_audit ON audit_logs; DROP FUNCTION refuse_audit()');
  }
  const families = await iora.sql('SELECT name, revoked_at FROM api_key_families WHERE owner_id = $1', [alice.ownerId]);
  assert.deepEqual(families, [{ name: 'a key', revoked_at: null }]);
  assert.equal((await iora.sql('SELECT FROM api_keys WHERE owner_id = $1', [alice.ownerId])).length, 1);
  assert.deepEqual(await rowsOf(alice, 'action, outcome, error_code'), [
    { action: 'api_key_created', outcome: 'succeeded', error_code: null },
    { action: 'api_key_created', outcome: 'failed', error_code: 'internal' },
    { action: 'api_key_updated', outcome: 'failed', error_code: 'internal' },
    { action: 'api_key_revoked', outcome: 'failed', error_code: 'internal' },
  ]);
});

test('refused writes leave their row with the reason, and change nothing', async () => {
  const alice = await person();
  const other = randomUUID();
  assert.equal(await code('keys.create', alice, { name: '' }), 'invalid_input');
  assert.equal(await code('keys.revoke', alice, { id: other }), 'not_found');
  assert.equal(await code('keys.update', alice, { id: other, name: 'x' }), 'not_found');
  for (let made = 0; made < 5; made += 1) await create(alice);
  assert.equal(await code('keys.create', alice, { name: 'x' }), 'key_limit_reached');
  const rows = await rowsOf(alice, 'action, resource_id, error_code, outcome');
  assert.deepEqual(
    rows.filter((row) => row.outcome === 'refused'),
    [
      { action: 'api_key_created', resource_id: null, error_code: 'invalid_input', outcome: 'refused' },
      { action: 'api_key_revoked', resource_id: other, error_code: 'not_found', outcome: 'refused' },
      { action: 'api_key_updated', resource_id: other, error_code: 'not_found', outcome: 'refused' },
      { action: 'api_key_created', resource_id: null, error_code: 'key_limit_reached', outcome: 'refused' },
    ],
  );
  assert.equal(rows.length, 9);
});

test('rows for refusals are bounded per owner and minute; what succeeds is always recorded', async () => {
  const [alice, bob] = [await person(), await person()];
  const clock = { ms: Date.now() };
  const audit = createAuditTrail({ database: iora.app.database, log: iora.log, wallClockMs: () => clock.ms });
  const refuse = (principal: Principal) => {
    const call: Call = {
      principal,
      requestId: randomUUID(),
      transport: 'http',
      ipAddress: null,
      userAgent: null,
      signal: null,
    };
    return audit.appendAlone({
      call,
      action: 'tested',
      resourceType: 'test',
      outcome: 'refused',
      errorCode: 'forbidden',
    });
  };
  const kept = async (who: Principal) => (await rowsOf(who, 'outcome')).length;
  const linesBefore = iora.log.named('audit row not kept').length;
  await Promise.all(Array.from({ length: REFUSALS_PER_MINUTE_MAX + 20 }, () => refuse(alice)));
  await refuse(bob);
  assert.deepEqual([await kept(alice), await kept(bob)], [REFUSALS_PER_MINUTE_MAX, 1]);
  assert.equal(iora.log.named('audit row not kept').length - linesBefore, 20, 'the log knows of the others');
  clock.ms += 60_000;
  await refuse(alice);
  assert.equal(await kept(alice), REFUSALS_PER_MINUTE_MAX + 1);

  for (let call = 0; call < REFUSALS_PER_MINUTE_MAX + 5; call += 1) await code('keys.create', bob, {});
  await create(bob);
  const rows = await rowsOf(bob, 'outcome');
  assert.equal(rows.filter((row) => row.outcome === 'succeeded').length, 1);
  assert.equal(rows.filter((row) => row.outcome === 'refused').length, REFUSALS_PER_MINUTE_MAX + 1);
});

test('whatever a caller says of itself, its write goes through', async () => {
  const alice = await person();
  const { id } = await create(alice);
  for (const change of [
    { userAgent: 'x'.repeat(5_000) },
    { userAgent: '' },
    { userAgent: 'caf\u00e9 \ud83d\ude00' },
    { ipAddress: 'fe80::1%eth0' },
    { ipAddress: '::ffff:192.0.2.7' },
  ]) {
    const outcome = await iora.call('keys.update', alice, { id, name: 'x' }, change);
    assert.ok(outcome.ok, JSON.stringify(change).slice(0, 80));
  }
  const rows = await rowsOf(alice, 'length(user_agent) AS length, host(ip_address) AS ip');
  assert.deepEqual(rows.at(1), { length: 512, ip: '192.0.2.1' });
  assert.equal(rows.at(-2).ip, 'fe80::1');
});

test('no secret stands in audit rows, usage rows or log lines, nor in any table', async () => {
  const address = 'secret-keeper@example.com';
  const token = await iora.token(address);
  const who = await iora.bearer(token);
  const keys: string[] = [];
  for (const environment of ['live', 'test']) {
    const { id, key } = await create(who, { environment, permissions: ['tools:read', 'keys:write', 'keys:read'] });
    keys.push(key);
    const principal = await iora.bearer(key);
    for (const [name, input] of [
      ['market.get_price', { symbol: 'BTC' }],
      ['keys.create', { name: '\n', key }],
      ['keys.update', { id, name: 'renamed' }],
      ['keys.list', { cursor: key }],
      ['keys.revoke', { id: key }],
      ['keys.revoke', { id: randomUUID() }],
    ] as const) {
      await iora.call(name, principal, input);
    }
    await assert.rejects(iora.bearer(`${key.slice(0, -1)}_`));
  }
  await iora.sql(`SELECT pg_notify('iora_invalidate', $1)`, [keys[0]]);
  await iora.output('usage.get', who);
  const tables = await iora.sql(
    `SELECT table_name AS name FROM information_schema.tables WHERE table_schema = 'public' AND table_type = 'BASE TABLE'`,
  );
  let rows = 0;
  const text: string[] = [...iora.log.lines()];
  for (const { name } of tables) {
    for (const row of await iora.sql(`SELECT t::text AS text FROM ${name} AS t`)) {
      rows += 1;
      text.push(row.text);
    }
  }
  assert.ok(rows > 30, 'the tables were read');
  const everything = text.join('\n');
  for (const secret of [
    token,
    address,
    ...iora.secrets.peppers.map((pepper) => Buffer.from(pepper.secret).toString('hex')),
  ]) {
    assert.equal(everything.includes(secret), false);
  }
  for (const key of keys) assert.equal(everything.includes(key.slice('iora_pk_live_'.length + 4)), false);
});
