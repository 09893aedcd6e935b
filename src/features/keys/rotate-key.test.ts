import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { startApplication, type TestApplication, testSecrets, until } from '../../../test/support/application.ts';
import { type TestCluster, type TestDatabase, testCluster } from '../../../test/support/postgres.ts';
import type { Principal } from '../../kernel/context.ts';
import type { Outcome } from '../../kernel/invoke.ts';
import { runJob } from '../../main/jobs.ts';
import type { KeyRecord } from './key-record.ts';

const secrets = testSecrets();
/** What is remembered is believed for a minute, so that only an invalidation or an expiry explains a refusal. */
const settings = { KEY_CACHE_TTL: '60' };

let cluster: TestCluster;
let database: TestDatabase;
let iora: TestApplication;
before(async () => {
  cluster = await testCluster();
  database = await cluster.database();
  iora = await startApplication(database, { secrets, settings });
});
after(async () => {
  await iora.close();
  await cluster.stop();
});

interface Rotated {
  readonly id: string;
  readonly key: string;
  readonly keyPrefix: string;
  readonly expiresAt: string | null;
  readonly previous: readonly {
    keyPrefix: string;
    expiresAt: string;
    lastUsedAt: string | null;
    usesSinceRotation: number;
  }[];
  readonly effectiveOn: number;
  readonly of: number;
}
interface Created {
  readonly id: string;
  readonly key: string;
  readonly keyPrefix: string;
}

let people = 0;
async function person(limits: { perMinute?: number; maxApiKeys?: number } = {}): Promise<Principal> {
  people += 1;
  const address = `rotating-${people}@example.com`;
  const { userId } = await iora.bearer(await iora.token(address, undefined, true));
  await iora.sql('UPDATE users SET max_api_keys = $2, max_requests_per_minute = $3 WHERE id = $1', [
    userId,
    limits.maxApiKeys ?? 500,
    limits.perMinute ?? 1_000,
  ]);
  return iora.session(address);
}

const create = (principal: Principal, input: Record<string, unknown> = {}, application = iora) =>
  application.output<Created>('keys.create', principal, { name: 'a key', ...input });
const rotate = (principal: Principal, id: string, input: Record<string, unknown> = {}, application = iora) =>
  application.output<Rotated>('keys.rotate', principal, { id, ...input });
const get = (principal: Principal, id: string) => iora.output<KeyRecord>('keys.get', principal, { id });
const works = (key: string, application = iora) =>
  application.bearer(key).then(
    () => true,
    (error: { code?: string }) => {
      assert.equal(error.code, 'unauthenticated');
      return false;
    },
  );
const codeOf = (outcome: Outcome) => (outcome.ok ? 'ok' : outcome.error.code);
const code = async (name: string, principal: Principal, input: unknown) =>
  codeOf(await iora.call(name, principal, input));

test('a rotation makes a new secret of the same key, and tells who still uses the old one', async () => {
  const alice = await person();
  const made = await create(alice, { permissions: ['tools:read', 'usage:read'], name: 'backend' });
  await iora.bearer(made.key);
  const before = Date.now();
  const rotated = await rotate(alice, made.id, { overlapSeconds: 60 });
  assert.deepEqual([rotated.id, rotated.expiresAt, rotated.effectiveOn, rotated.of], [made.id, null, 1, 1]);
  assert.notEqual(rotated.key, made.key);
  const [old] = rotated.previous;
  assert.deepEqual([rotated.previous.length, old?.keyPrefix, old?.usesSinceRotation], [1, made.keyPrefix, 0]);
  assert.ok(old?.lastUsedAt !== null, 'its use a moment ago is counted already');
  const expiresAt = new Date(old?.expiresAt ?? '').getTime();
  assert.ok(expiresAt >= before + 60_000 && expiresAt <= Date.now() + 60_000);

  const [byOld, byNew] = [await iora.bearer(made.key), await iora.bearer(rotated.key)];
  assert.deepEqual([byOld.key?.id, byNew.key?.id], [made.id, made.id]);
  assert.deepEqual([...byNew.permissions], ['tools:read', 'usage:read']);
  assert.deepEqual([byOld.key?.expiresAt?.toISOString(), byNew.key?.expiresAt], [old?.expiresAt, null]);
  for (let use = 0; use < 3; use += 1) await iora.bearer(made.key);

  const shown = await get(alice, made.id);
  assert.deepEqual(
    shown.secrets.map(({ keyPrefix, state, usesSinceRotation, expiresAt: end }) => [
      keyPrefix,
      state,
      usesSinceRotation,
      end,
    ]),
    [
      [rotated.keyPrefix, 'current', null, null],
      [made.keyPrefix, 'overlap', 4, old?.expiresAt],
    ],
  );
  assert.equal(shown.keyPrefix, rotated.keyPrefix);
  const { items } = await iora.output<{ items: KeyRecord[] }>('keys.list', alice);
  assert.deepEqual(items, [shown]);
  assert.equal((await get(alice, made.id.toUpperCase())).id, made.id);

  const [audit] = await iora.sql(
    `SELECT action, changes::text AS changes FROM audit_logs WHERE resource_id = $1 AND action = 'api_key_rotated'`,
    [made.id],
  );
  assert.ok(audit.changes.includes(made.keyPrefix));
  for (const key of [made.key, rotated.key]) assert.ok(!audit.changes.includes(key));
});

test('without overlap the old secrets stop at once; with one they stop when it ends', async () => {
  const alice = await person();
  const made = await create(alice);
  await iora.bearer(made.key);
  const second = await rotate(alice, made.id, { overlapSeconds: 1 });
  assert.deepEqual([await works(made.key), await works(second.key)], [true, true]);
  await until(async () => !(await works(made.key)), 'the overlap ends');
  assert.ok(Date.now() >= new Date(second.previous[0]?.expiresAt ?? '').getTime());
  const third = await rotate(alice, made.id, { overlapSeconds: 0 });
  assert.deepEqual(
    third.previous.map(({ keyPrefix }) => keyPrefix),
    [second.keyPrefix],
    'what had ended is no longer told of',
  );
  assert.deepEqual([await works(second.key), await works(third.key)], [false, true]);
  const states = (await get(alice, made.id)).secrets.map(({ state }) => state);
  assert.deepEqual(states, ['current', 'ended', 'ended']);
});

test('at most three secrets work at once, and the refusal says what to do', async () => {
  const alice = await person();
  const made = await create(alice);
  const second = await rotate(alice, made.id, { overlapSeconds: 600 });
  const third = await rotate(alice, made.id, { overlapSeconds: 3_600 });
  const refused = await iora.call('keys.rotate', alice, { id: made.id });
  assert.ok(!refused.ok && refused.error.code === 'rotation_in_progress');
  assert.equal(refused.error.status, 409);
  const firstEnd = second.previous[0]?.expiresAt;
  assert.deepEqual(refused.error.details, { limit: 3, retryAt: firstEnd });
  assert.match(refused.error.message, /overlapSeconds 0/);
  for (const { key } of [made, second, third]) assert.equal(await works(key), true, 'nothing was changed');
  assert.equal(
    third.previous.find(({ keyPrefix }) => keyPrefix === made.keyPrefix)?.expiresAt,
    firstEnd,
    'an overlap that runs already is not lengthened by a later rotation',
  );
  const fourth = await rotate(alice, made.id, { overlapSeconds: 0 });
  assert.equal(fourth.previous.length, 3);
  assert.deepEqual(await Promise.all([made, second, third, fourth].map(({ key }) => works(key))), [
    false,
    false,
    false,
    true,
  ]);
});

test('a key of which a thousand secrets are kept is rotated no more, and the refusal says what to do', async () => {
  const alice = await person();
  const made = await create(alice);
  await iora.sql(
    `INSERT INTO api_keys (family_id, user_id, key_hash, pepper_version, key_prefix, is_active, expires_at)
       SELECT $1::uuid, $2, sha256(($1::text || n)::bytea), 1, 'old', false, now() FROM generate_series(1, 998) n`,
    [made.id, alice.userId],
  );
  await rotate(alice, made.id);
  const refused = await iora.call('keys.rotate', alice, { id: made.id });
  assert.ok(!refused.ok && refused.error.code === 'key_limit_reached' && refused.error.status === 409);
  assert.match(refused.error.message, /1000 secrets.*make a new key/);
  assert.equal(await works(made.key), true, 'nothing was changed');
});

test('rotations at the same moment leave one current secret and never more than three that work', async () => {
  const alice = await person();
  const made = await create(alice);
  const outcomes = await Promise.all(
    Array.from({ length: 8 }, () => iora.call('keys.rotate', alice, { id: made.id, overlapSeconds: 600 })),
  );
  assert.deepEqual(outcomes.map(codeOf).toSorted(), [...Array(2).fill('ok'), ...Array(6).fill('rotation_in_progress')]);
  const { secrets: shown } = await get(alice, made.id);
  assert.deepEqual(
    shown.map(({ state }) => state),
    ['current', 'overlap', 'overlap'],
  );
});

test('no overlap goes beyond the own expiry of secret or key, whatever is asked for', async () => {
  const alice = await person();
  const day = 86_400;
  await fc.assert(
    fc.asyncProperty(
      fc.option(fc.integer({ min: 5, max: 60 * day })),
      fc.array(fc.integer({ min: 1, max: 30 * day }), { minLength: 1, maxLength: 2 }),
      fc.option(fc.integer({ min: 5, max: 60 * day })),
      async (familySeconds, overlaps, laterSeconds) => {
        const inSeconds = (seconds: number) => new Date(Date.now() + seconds * 1_000).toISOString();
        const expiresAt = familySeconds === null ? undefined : inSeconds(familySeconds);
        const made = await create(alice, { expiresAt });
        const ends = new Map<string, number>();
        for (const overlapSeconds of overlaps) {
          const { previous } = await rotate(alice, made.id, { overlapSeconds });
          const latest = Date.now() + overlapSeconds * 1_000;
          for (const { keyPrefix, expiresAt: end } of previous) {
            const at = new Date(end).getTime();
            assert.ok(at <= latest, 'within the overlap');
            if (expiresAt !== undefined) assert.ok(at <= new Date(expiresAt).getTime(), 'within the expiry of the key');
            assert.ok(at <= (ends.get(keyPrefix) ?? Number.POSITIVE_INFINITY), 'within its own expiry');
            ends.set(keyPrefix, at);
          }
        }
        // A longer life of the key is none of an old secret's.
        await iora.output('keys.update', alice, {
          id: made.id,
          expiresAt: laterSeconds === null ? null : inSeconds(laterSeconds),
        });
        for (const { keyPrefix, state, expiresAt: end } of (await get(alice, made.id)).secrets) {
          if (state === 'current') continue;
          const at = new Date(end ?? '9999-01-01').getTime();
          assert.ok(at <= (ends.get(keyPrefix) ?? 0), 'an update does not lengthen it');
        }
        const seen = (await iora.bearer(made.key)).key?.expiresAt?.getTime() ?? Number.POSITIVE_INFINITY;
        assert.ok(seen <= (ends.get(made.keyPrefix) ?? 0), 'and it is refused from then on');
        await iora.output('keys.revoke', alice, { id: made.id });
      },
    ),
    { numRuns: 60 },
  );
});

test('a leaked secret gets no overlap: it ends with the rotation', async () => {
  const alice = await person();
  const made = await create(alice, { permissions: ['tools:read', 'keys:write'] });
  await iora.sql('UPDATE api_keys SET leaked_at = now() WHERE family_id = $1', [made.id]);
  const leaked = await iora.bearer(made.key);
  assert.equal(await code('keys.rotate', leaked, { id: made.id }), 'forbidden', 'whoever found it gets no new secret');
  assert.deepEqual(
    (await get(alice, made.id)).secrets.map(({ state }) => state),
    ['leaked'],
  );
  const rotated = await rotate(alice, made.id, { overlapSeconds: 3_600 });
  assert.deepEqual([await works(made.key), await works(rotated.key)], [false, true]);
  assert.ok(new Date(rotated.previous[0]?.expiresAt ?? '').getTime() <= Date.now());
  assert.deepEqual(
    (await get(alice, made.id)).secrets.map(({ state }) => state),
    ['current', 'leaked'],
  );
});

test('nobody obtains by rotation a secret of a key that is more than its own', async () => {
  const alice = await person();
  const soon = new Date(Date.now() + 3_600_000).toISOString();
  const weak = {
    permissions: ['keys:write', 'tools:read'],
    environment: 'test',
    expiresAt: soon,
    requestsPerMinute: 10,
    requestsPerMonth: 100,
    allowedCidrs: ['192.0.2.0/24'],
  };
  const parent = await create(alice, weak);
  const key = await iora.bearer(parent.key);
  const stronger = [
    { permissions: ['keys:write', 'tools:read', 'usage:read'] },
    { environment: 'live' },
    { expiresAt: undefined },
    { expiresAt: new Date(Date.now() + 7_200_000).toISOString() },
    { requestsPerMinute: 11 },
    { requestsPerMinute: null },
    { requestsPerMonth: null },
    { allowedCidrs: [] },
    { allowedCidrs: ['192.0.0.0/16'] },
    { allowedCidrs: ['192.0.2.0/25', '198.51.100.7'] },
  ];
  for (const excess of stronger) {
    const { id, key: theirs } = await create(alice, { ...weak, ...excess });
    const outcome = await iora.call('keys.rotate', key, { id, overlapSeconds: 0 });
    assert.equal(codeOf(outcome), 'forbidden', JSON.stringify(excess));
    assert.equal((await get(alice, id)).secrets.length, 1, 'and nothing was changed');
    assert.equal(await works(theirs), true);
  }
  const fits = await create(alice, { ...weak, requestsPerMinute: 9, allowedCidrs: ['192.0.2.128/25'] });
  assert.equal(await code('keys.rotate', key, { id: fits.id }), 'ok');

  // A key may renew itself, but an old secret that runs out makes none that does not.
  const free = await create(alice, { permissions: ['keys:write'] });
  const renewed = await rotate(await iora.bearer(free.key), free.id, { overlapSeconds: 600 });
  assert.equal(await works(renewed.key), true);
  assert.equal(await code('keys.rotate', await iora.bearer(free.key), { id: free.id, overlapSeconds: 0 }), 'forbidden');
});

test('who may not change a key may not rotate it: strangers, viewers, colleagues; nor one that has ended', async () => {
  const org = `rotating-org-${people}`;
  const owner = await iora.session('founder@example.com', org);
  const member = await iora.member('member@example.com', org, 'member');
  const viewer = await iora.member('viewer@example.com', org, 'viewer');
  const made = await create(owner);
  const ofMember = await create(member);
  const input = { id: made.id };
  assert.equal(await code('keys.rotate', await person(), input), 'not_found');
  assert.equal(await code('keys.rotate', member, input), 'not_found');
  assert.equal(await code('keys.rotate', viewer, input), 'forbidden');
  const rotated = await rotate(owner, ofMember.id);
  assert.equal((await iora.bearer(rotated.key)).userId, member.userId, 'it stays the key of whoever created it');

  await iora.output('keys.revoke', owner, { id: made.id });
  assert.equal(await code('keys.rotate', owner, input), 'not_found');
  const expired = await create(owner);
  await iora.sql(`UPDATE api_key_families SET expires_at = now() WHERE id = $1`, [expired.id]);
  assert.equal(await code('keys.rotate', owner, { id: expired.id }), 'not_found');
});

test('revoking a key ends every secret of it, also one rotated at the same moment', async () => {
  const alice = await person();
  for (let round = 0; round < 5; round += 1) {
    const made = await create(alice);
    const [rotated] = await Promise.all([
      iora.call('keys.rotate', alice, { id: made.id }),
      iora.output('keys.revoke', alice, { id: made.id }),
    ]);
    assert.equal(await works(made.key), false);
    if (rotated.ok) assert.equal(await works((rotated.output as Rotated).key), false);
    else assert.equal(rotated.error.code, 'not_found');
  }
});

test('under load no call is refused for its secret during the overlap, and both together stay within the limit of the key', async () => {
  const alice = await person({ perMinute: 100_000 });
  const limit = 300;
  const made = await create(alice, { requestsPerMinute: limit, requestsPerMonth: 10_000 });
  const tally = new Map<string, number>();
  const usedBy = new Map<string, number>();
  async function ask(key: string): Promise<void> {
    const outcome = await iora.call('market.get_price', await iora.bearer(key), { symbol: 'BTC' });
    const answer = codeOf(outcome);
    tally.set(answer, (tally.get(answer) ?? 0) + 1);
    if (outcome.ok) usedBy.set(key, (usedBy.get(key) ?? 0) + 1);
  }
  const batch = (keys: readonly string[], calls: number) =>
    Promise.all(Array.from({ length: calls }, (_, index) => ask(keys[index % keys.length] ?? '')));

  await batch([made.key], 100);
  const [rotated] = await Promise.all([rotate(alice, made.id, { overlapSeconds: 600 }), batch([made.key], 100)]);
  // Known beforehand, so that the old one does not take all that is left while this one is looked up.
  await iora.bearer(rotated.key);
  await batch([made.key, rotated.key], 400);
  assert.deepEqual(Object.fromEntries(tally), { ok: limit, rate_limited: 300 });
  assert.ok((usedBy.get(made.key) ?? 0) > 0 && (usedBy.get(rotated.key) ?? 0) > 0, 'both were admitted');

  const current = await iora.output<{ limits: { policy: string; remaining: number }[] }>(
    'keys.current',
    await iora.bearer(rotated.key),
  );
  const remaining = Object.fromEntries(current.limits.map((state) => [state.policy, state.remaining]));
  assert.deepEqual(
    [remaining['key-minute'], remaining['key-month']],
    [0, 10_000 - limit],
    'the quota is shared as well',
  );
  await until(async () => {
    const [row] = await iora.sql(
      `SELECT count(DISTINCT key_secret_id)::int AS secrets, sum(cost)::int AS cost FROM usage_logs WHERE api_key_id = $1`,
      [made.id],
    );
    return row.secrets === 2 && row.cost === limit;
  }, 'the usage of both secrets is on the books of the one key');

  const last = await rotate(alice, made.id, { overlapSeconds: 0 });
  assert.deepEqual([await works(made.key), await works(rotated.key), await works(last.key)], [false, false, true]);
});

test('a rotation holds on every instance, and over a restart', async () => {
  const other = await startApplication(database, { secrets, settings });
  const alice = await person();
  const made = await create(alice);
  await other.bearer(made.key);
  const rotated = await rotate(alice, made.id, { overlapSeconds: 600 });
  assert.deepEqual([rotated.effectiveOn, rotated.of], [2, 2]);
  const end = rotated.previous[0]?.expiresAt;
  assert.equal((await other.bearer(made.key)).key?.expiresAt?.toISOString(), end, 'the other knows the end already');
  await other.close();

  const restarted = await startApplication(database, { secrets, settings });
  assert.equal((await restarted.bearer(made.key)).key?.expiresAt?.toISOString(), end);
  const last = await rotate(alice, made.id, { overlapSeconds: 0 }, restarted);
  for (const application of [iora, restarted]) {
    assert.deepEqual(await Promise.all([made, rotated, last].map(({ key }) => works(key, application))), [
      false,
      false,
      true,
    ]);
  }
  await restarted.close();
});

const MINUTE_MS = 60_000;
/** A round of the job at that moment; where the application itself is at it, once more. */
async function endIdle(nowMs: number): Promise<Readonly<Record<string, number>>> {
  const job = iora.app.jobs.find(({ name }) => name === 'keys.end_idle_overlaps') ?? assert.fail();
  let counts: Readonly<Record<string, number>> | null = null;
  await until(async () => {
    counts = await runJob({ database: iora.app.database, wallClockMs: () => nowMs }, job);
    return counts !== null;
  }, 'the job is free');
  return counts ?? assert.fail();
}

test('an overlap that may finish when idle ends some minutes after the last use, and no other does', async () => {
  const alice = await person();
  const made = await Promise.all([create(alice), create(alice), create(alice)]);
  const [idle, busy, patient] = made;
  for (const { key } of made) await iora.bearer(key);
  const now = Date.now();
  for (const { id } of [idle, busy]) await rotate(alice, id, { overlapSeconds: 3_600, finishWhenIdle: true });
  await rotate(alice, patient.id, { overlapSeconds: 3_600 });
  assert.deepEqual(await endIdle(now + 4 * MINUTE_MS), {}, 'not so soon');
  await iora.sql(`UPDATE api_keys SET last_used_at = now() + interval '3 minutes' WHERE family_id = $1`, [busy.id]);
  assert.deepEqual(await endIdle(now + 6 * MINUTE_MS), { ended: 1 });
  assert.deepEqual(await endIdle(now + 6 * MINUTE_MS), {}, 'once');
  assert.deepEqual(await Promise.all(made.map(({ key }) => works(key))), [false, true, true]);
  assert.deepEqual(
    (await get(alice, idle.id)).secrets.map(({ state }) => state),
    ['current', 'ended'],
  );
  const rows = await iora.sql(
    `SELECT owner_id, actor_type, resource_id, changes FROM audit_logs WHERE action = 'api_key_overlap_ended'`,
  );
  assert.deepEqual(rows, [
    { owner_id: alice.ownerId, actor_type: 'system', resource_id: idle.id, changes: { keyPrefix: idle.keyPrefix } },
  ]);
  assert.deepEqual(await endIdle(now + 9 * MINUTE_MS), { ended: 1 }, 'the other once it is idle too');
  assert.equal(await works(busy.key), false);
  // An overlap that has run out needs no ending, and is not looked at for ever.
  const short = await create(alice);
  await rotate(alice, short.id, { overlapSeconds: 60, finishWhenIdle: true });
  assert.deepEqual(await endIdle(now + 20 * MINUTE_MS), {});
  const [row] = await iora.sql('SELECT count(*)::int AS n FROM api_keys WHERE ends_when_idle');
  assert.equal(row.n, 0);
});
