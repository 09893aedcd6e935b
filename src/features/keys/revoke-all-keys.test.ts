import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { startApplication, type TestApplication, testSecrets, until } from '../../../test/support/application.ts';
import { type TestCluster, testCluster } from '../../../test/support/postgres.ts';
import type { Principal } from '../../kernel/context.ts';
import { lockKeysOf } from './create-key.ts';
import type { KeyRecord } from './key-record.ts';

const options = { secrets: testSecrets(), settings: { KEY_CACHE_TTL: '60' } };

let cluster: TestCluster;
let iora: TestApplication;
let other: TestApplication;
before(async () => {
  cluster = await testCluster();
  const database = await cluster.database();
  iora = await startApplication(database, options);
  other = await startApplication(database, options);
});
after(async () => {
  await Promise.all([iora.close(), other.close()]);
  await cluster.stop();
});

interface Revoked {
  readonly revoked: number;
  readonly effectiveOn: number;
  readonly of: number;
}

let organizations = 0;
/** An organization with people of three roles, and room for keys. */
async function organization() {
  organizations += 1;
  const org = `leavers-${organizations}`;
  const address = (who: string) => `${who}@${org}.example.com`;
  const { orgId } = await iora.session(address('founder'), org);
  await iora.sql('UPDATE organizations SET max_api_keys = 500 WHERE id = $1', [orgId]);
  return {
    owner: await iora.member(address('owner'), org, 'owner'),
    member: await iora.member(address('member'), org, 'member'),
    viewer: await iora.member(address('viewer'), org, 'viewer'),
    alone: await iora.session(address('member')),
  };
}

/** A key that both applications remember. */
async function knownKey(owner: Principal, input: Record<string, unknown> = {}) {
  const made = await iora.output<{ id: string; key: string }>('keys.create', owner, { name: 'a key', ...input });
  for (const application of [iora, other]) await application.bearer(made.key);
  return made;
}

const revokeAll = (principal: Principal, input: Record<string, unknown> = {}) =>
  iora.output<Revoked>('keys.revoke_all', principal, input);
const refused = async (key: string) => {
  const answers = await Promise.all(
    [iora, other].map((application) =>
      application.bearer(key).then(
        () => false,
        (error: { code?: string }) => error.code === 'unauthenticated',
      ),
    ),
  );
  assert.equal(answers[0], answers[1], 'both instances agree');
  return answers[0];
};

test("a leaver's keys end on every instance with the answer, and nobody else's", async () => {
  const { owner, member, alone } = await organization();
  const theirs = [await knownKey(member), await knownKey(member)];
  const rotated = await iora.output<{ key: string }>('keys.rotate', member, { id: theirs[0]?.id });
  const others = [await knownKey(owner), await knownKey(alone)];
  const answer = await revokeAll(owner, { createdBy: member.userId });
  assert.deepEqual([answer.revoked, answer.effectiveOn, answer.of], [2, 2, 2]);
  for (const { key } of [...theirs, rotated]) assert.equal(await refused(key), true);
  for (const { key } of others) assert.equal(await refused(key), false);
  assert.equal((await revokeAll(owner, { createdBy: member.userId })).revoked, 0, 'again changes nothing');
  const { items } = await iora.output<{ items: KeyRecord[] }>('keys.list', owner);
  assert.deepEqual(items.map(({ status }) => status).toSorted(), ['active', 'revoked', 'revoked']);
  const rows = await iora.sql(
    `SELECT resource_id, changes FROM audit_logs WHERE owner_id = $1 AND action = 'api_keys_revoked' ORDER BY created_at`,
    [owner.ownerId],
  );
  assert.deepEqual(
    rows.map((row) => [row.resource_id, row.changes.revoked]),
    [
      [member.userId, 2],
      [member.userId, 0],
    ],
  );
  assert.deepEqual(rows[0].changes.keyIds.toSorted(), theirs.map(({ id }) => id).toSorted());
});

test('all keys of an organization end at once, the calling one included; those of a person stay its own', async () => {
  const { owner, member, alone } = await organization();
  const calling = await knownKey(owner, { permissions: ['keys:write'] });
  const keys = [calling, await knownKey(owner), await knownKey(member)];
  const personal = await knownKey(alone);
  const answer = await revokeAll(await iora.bearer(calling.key));
  assert.deepEqual([answer.revoked, answer.effectiveOn, answer.of], [3, 2, 2]);
  for (const { key } of keys) assert.equal(await refused(key), true);
  assert.equal(await refused(personal.key), false);
  assert.equal((await revokeAll(alone)).revoked, 1);
  assert.equal(await refused(personal.key), true);
});

test('a member revokes its own only, a viewer and a key without the permission nothing', async () => {
  const { owner, member, viewer } = await organization();
  const [ofOwner, ofMember] = [await knownKey(owner), await knownKey(member)];
  const code = async (principal: Principal, input: Record<string, unknown>) => {
    const outcome = await iora.call('keys.revoke_all', principal, input);
    return outcome.ok ? 'ok' : outcome.error.code;
  };
  assert.equal(await code(member, { createdBy: owner.userId }), 'forbidden');
  assert.equal(await code(viewer, {}), 'forbidden');
  assert.equal(await code(await iora.bearer(ofOwner.key), {}), 'forbidden');
  assert.equal(await code(owner, { createdBy: "user_x'; drop table users; --" }), 'invalid_input');
  assert.equal((await revokeAll(owner, { createdBy: 'user_nobody' })).revoked, 0);
  assert.equal((await revokeAll(member)).revoked, 1);
  assert.deepEqual([await refused(ofOwner.key), await refused(ofMember.key)], [false, true]);
});

test('a key that is being made is waited for and revoked too; one that was revoked meanwhile makes none any more', async () => {
  const { owner } = await organization();
  const calling = await knownKey(owner, { permissions: ['keys:write', 'tools:read'] });
  const underWay = await iora.bearer(calling.key);
  let answer: Promise<Revoked> | undefined;
  await iora.app.database.write(owner, async (tx) => {
    await lockKeysOf(tx, owner.ownerId);
    answer = revokeAll(owner);
    await until(async () => {
      const [row] = await iora.sql(
        `SELECT count(*)::int AS n FROM pg_locks WHERE locktype = 'advisory' AND NOT granted`,
      );
      return row.n === 1;
    }, 'the revocation waits for the creation');
    await tx
      .insertInto('api_key_families')
      .values({ user_id: owner.userId ?? '', org_id: owner.orgId, name: 'under way', environment: 'live' })
      .execute();
  });
  assert.equal((await answer)?.revoked, 2);
  const outcome = await iora.call('keys.create', underWay, { name: 'x' });
  assert.equal(outcome.ok ? 'ok' : outcome.error.code, 'unauthenticated');
});

test('a key made or rotated at the same moment works exactly where it is listed as active', async () => {
  const { owner } = await organization();
  for (let round = 0; round < 5; round += 1) {
    const first = await knownKey(owner);
    const work = [
      ...Array.from({ length: 4 }, () => iora.call('keys.create', owner, { name: 'racing' })),
      iora.call('keys.rotate', owner, { id: first.id }),
    ];
    const [answer, ...outcomes] = await Promise.all([revokeAll(owner), ...work]);
    const { items } = await iora.output<{ items: KeyRecord[] }>('keys.list', owner, { limit: 100 });
    const live = new Set(items.filter(({ status }) => status === 'active').map(({ id }) => id));
    for (const outcome of outcomes) {
      if (!outcome.ok) continue;
      const { id, key } = outcome.output as { id: string; key: string };
      assert.equal(await refused(key), !live.has(id), 'it works exactly where it is listed as active');
    }
    assert.ok(answer.revoked >= 1);
    assert.ok(!live.has(first.id), 'what was there before is gone, whatever was going on');
    await revokeAll(owner);
  }
});
