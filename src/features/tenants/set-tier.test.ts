import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { startApplication, type TestApplication, testSecrets } from '../../../test/support/application.ts';
import { type TestCluster, type TestDatabase, testCluster } from '../../../test/support/postgres.ts';
import type { Principal } from '../../kernel/context.ts';
import { installationOperator } from './index.ts';

// Both applications believe what they remember for a minute.
const settings = { KEY_CACHE_TTL: '60' };

let cluster: TestCluster;
let database: TestDatabase;
let one: TestApplication;
let two: TestApplication;
before(async () => {
  cluster = await testCluster();
  database = await cluster.database();
  const secrets = testSecrets();
  one = await startApplication(database, { settings, secrets });
  two = await startApplication(database, { settings, secrets });
});
after(async () => {
  await Promise.all([one.close(), two.close()]);
  await cluster.stop();
});

let unused = 0;
/** A session of somebody new, and its token. */
async function somebody(org?: string, admin?: boolean): Promise<{ token: string; session: Principal }> {
  unused += 1;
  const token = await one.token(`person-${unused}@example.com`, org, admin);
  return { token, session: await one.bearer(token) };
}

interface Tier {
  readonly ownerId: string;
  readonly tier: string;
  readonly previousTier: string;
  readonly effectiveOn: number;
  readonly of: number;
}
const setTier = (principal: Principal, input: object) => one.output<Tier>('tenants.set_tier', principal, input);

test('only an administrator of the platform may: an organization owner, a key and nobody else', async () => {
  const { session } = await somebody('acme');
  assert.equal(session.role, 'owner');
  const { key } = await one.output<{ key: string }>('keys.create', session, { name: 'x' });
  for (const principal of [session, await one.bearer(key)]) {
    const outcome = await one.call('tenants.set_tier', principal, { tier: 'pro' });
    assert.ok(!outcome.ok);
    assert.deepEqual([outcome.error.code, outcome.error.status], ['forbidden', 403]);
  }
  const rows = await one.sql('SELECT tier FROM organizations WHERE id = $1', [session.orgId]);
  assert.deepEqual(rows, [{ tier: 'free' }]);
  const audited = await one.sql(`SELECT outcome FROM audit_logs WHERE owner_id = $1 AND action = 'tier_changed'`, [
    session.ownerId,
  ]);
  assert.deepEqual(audited, [{ outcome: 'refused' }, { outcome: 'refused' }]);
});

test('without a name it is the own one: one row in the trail, and both instances know at once', async () => {
  const { token, session } = await somebody('own', true);
  assert.equal((await two.bearer(token)).tier, 'free');
  const { ownerId, previousTier, tier, effectiveOn, of } = await setTier(session, { tier: 'enterprise' });
  assert.deepEqual([ownerId, previousTier, tier, effectiveOn, of], [session.orgId, 'free', 'enterprise', 2, 2]);
  for (const application of [one, two]) {
    const known = await application.bearer(token);
    assert.deepEqual([known.tier, known.limits.maxApiKeys], ['enterprise', 500]);
  }
  const audited = await one.sql(
    `SELECT actor_type, changes, resource_id FROM audit_logs WHERE owner_id = $1 AND action = 'tier_changed'`,
    [ownerId],
  );
  const changes = { before: 'free', after: 'enterprise' };
  assert.deepEqual(audited, [{ actor_type: 'session', changes, resource_id: ownerId }]);
  assert.equal((await setTier(session, { tier: 'enterprise' })).previousTier, 'enterprise');
});

test('nothing but the tier of that owner changes, and its own limits go on to hold', async () => {
  const { session: admin } = await somebody(undefined, true);
  for (const org of [undefined, 'kept']) {
    const { token, session } = await somebody(org);
    const table = org === undefined ? 'users' : 'organizations';
    await one.sql(`UPDATE ${table} SET max_requests_per_minute = 7, max_api_keys = 3 WHERE id = $1`, [session.ownerId]);
    const rows = () => one.sql(`SELECT * FROM ${table} ORDER BY id`);
    const before = await rows();
    const input = org === undefined ? { userId: session.userId } : { orgId: session.orgId };
    await setTier(admin, { tier: 'pro', ...input });
    const after = await rows();
    const expected = before.map((row, index) =>
      row.id === session.ownerId
        ? { ...row, tier: 'pro', updated_at: after[index].updated_at, epoch: String(Number(row.epoch) + 1) }
        : row,
    );
    assert.deepEqual(after, expected);
    const { tier, limits } = await one.bearer(token);
    assert.deepEqual([tier, limits], ['pro', { requestsPerMinute: 7, requestsPerMonth: 100_000, maxApiKeys: 3 }]);
    const told = await one.sql(
      `SELECT actor_type, actor_id, resource_id, changes FROM audit_logs WHERE owner_id = $1 AND action = 'tier_changed'`,
      [session.ownerId],
    );
    const changes = { before: 'free', after: 'pro' };
    assert.deepEqual(told, [{ actor_type: 'operator', actor_id: admin.userId, resource_id: session.ownerId, changes }]);
  }
});

test('what is not there, not a tier, or two things at once is refused and changes nothing', async () => {
  const { session } = await somebody(undefined, true);
  const refused = async (principal: Principal, input: object) => {
    const outcome = await one.call('tenants.set_tier', principal, input);
    return outcome.ok ? 'done' : `${outcome.error.code} ${outcome.error.message}`;
  };
  assert.match(await refused(session, { tier: 'gold' }), /^invalid_input tier: must be one of enterprise, free, pro$/);
  assert.match(await refused(session, { tier: 'pro', userId: 'user_nobody' }), /^not_found .*user_nobody/);
  assert.match(await refused(session, { tier: 'pro', orgId: 'org_nobody' }), /^not_found .*org_nobody/);
  assert.match(await refused(session, { tier: 'pro', orgId: 'org_a', userId: 'user_a' }), /^invalid_input orgId: /);
  assert.match(await refused(session, { tier: 'pro', orgId: 'a' }), /^invalid_input orgId: must be org_/);
  assert.match(await refused(installationOperator, { tier: 'pro' }), /^invalid_input userId: say whose/);
  const [row] = await one.sql('SELECT tier FROM users WHERE id = $1', [session.userId]);
  assert.equal(row.tier, 'free');
});
