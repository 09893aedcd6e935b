import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { startApplication, type TestApplication } from '../../../test/support/application.ts';
import { type TestCluster, testCluster } from '../../../test/support/postgres.ts';
import type { Principal } from '../../kernel/context.ts';
import { encodeCursor } from '../../lib/cursor.ts';
import { parseKey } from '../../lib/key-format.ts';
import type { KeyRecord } from './key-record.ts';

let cluster: TestCluster;
let iora: TestApplication;
before(async () => {
  cluster = await testCluster();
  iora = await startApplication(await cluster.database());
});
after(async () => {
  await iora.close();
  await cluster.stop();
});

interface Created {
  readonly id: string;
  readonly key: string;
  readonly keyPrefix: string;
  readonly createdAt: string;
}

let people = 0;
function unused(): number {
  people += 1;
  return people;
}
const email = () => `person-${unused()}@example.com`;
const organization = () => `org-${unused()}`;

/** Somebody new, with room for that many keys. */
async function person(maxApiKeys = 5): Promise<Principal> {
  const address = email();
  const { userId } = await iora.bearer(await iora.token(address, undefined, true));
  await iora.sql('UPDATE users SET max_api_keys = $2 WHERE id = $1', [userId, maxApiKeys]);
  return iora.session(address);
}

const create = (principal: Principal, input: Record<string, unknown> = {}) =>
  iora.output<Created>('keys.create', principal, { name: 'a key', ...input });
const get = (principal: Principal, id: string) => iora.output<KeyRecord>('keys.get', principal, { id });
const listAll = async (principal: Principal) =>
  (await iora.output<{ items: KeyRecord[] }>('keys.list', principal, { limit: 100 })).items;

/** The error code of a call, or `ok`. */
async function code(name: string, principal: Principal, input?: unknown): Promise<string> {
  const outcome = await iora.call(name, principal, input);
  return outcome.ok ? 'ok' : outcome.error.code;
}

test('a key is made, works, is shown without its secret, and is revoked for good', async () => {
  const alice = await person();
  const made = await create(alice, { name: 'backend' });
  assert.equal(parseKey(made.key)?.prefix, made.keyPrefix);
  const principal = await iora.bearer(made.key);
  assert.equal(principal.kind, 'api_key');
  assert.equal(principal.ownerId, alice.ownerId);
  assert.deepEqual([...principal.permissions], ['tools:read']);
  assert.equal(principal.key?.id, made.id);

  const shown = await get(alice, made.id);
  assert.deepEqual(
    { ...shown, createdAt: '', updatedAt: '' },
    {
      id: made.id,
      name: 'backend',
      keyPrefix: made.keyPrefix,
      environment: 'live',
      permissions: ['tools:read'],
      status: 'active',
      requestsPerMinute: null,
      requestsPerMonth: null,
      allowedCidrs: [],
      createdBy: alice.userId,
      createdAt: '',
      updatedAt: '',
      expiresAt: null,
      revokedAt: null,
      // It was used to authenticate above, and what this process counted is written before it is shown.
      lastUsedAt: shown.secrets[0]?.lastUsedAt,
      secrets: [
        {
          keyPrefix: made.keyPrefix,
          createdAt: made.createdAt,
          lastUsedAt: shown.lastUsedAt,
          usesSinceRotation: null,
          expiresAt: null,
          state: 'current',
        },
      ],
    },
  );
  assert.ok(shown.lastUsedAt !== null);
  assert.deepEqual(await listAll(alice), [shown]);

  const revoked = await iora.output<{ revokedAt: string; effectiveOn: number; of: number }>('keys.revoke', alice, {
    id: made.id,
  });
  assert.deepEqual([revoked.effectiveOn, revoked.of], [1, 1]);
  await assert.rejects(iora.bearer(made.key), { code: 'unauthenticated' });
  const again = await iora.output<{ revokedAt: string }>('keys.revoke', alice, { id: made.id });
  assert.equal(again.revokedAt, revoked.revokedAt, 'the first moment stands');
  assert.equal((await get(alice, made.id)).status, 'revoked');
  assert.equal(await code('keys.update', alice, { id: made.id, name: 'back' }), 'not_found');
});

test('an id in capitals names the same key: its revocation holds at once, and its update too', async () => {
  const alice = await person();
  for (const [name, change] of [
    ['keys.update', { permissions: ['usage:read'] }],
    ['keys.revoke', {}],
  ] as const) {
    const { id, key } = await create(alice);
    await iora.bearer(key);
    assert.equal(await code(name, alice, { id: id.toUpperCase(), ...change }), 'ok');
    const seen = await iora.bearer(key).then(
      (principal) => [...principal.permissions],
      (error: { code: string }) => error.code,
    );
    assert.deepEqual(seen, name === 'keys.update' ? ['usage:read'] : 'unauthenticated');
  }
});

test('a revocation leaves secrets that ended before as they were, and waits for nobody who holds them', async () => {
  const alice = await person();
  const { id, key } = await create(alice);
  await iora.sql(
    `INSERT INTO api_keys (family_id, user_id, key_hash, pepper_version, key_prefix, is_active, revoked_at)
       VALUES ($1, $2, sha256($3), 1, 'iora_pk_live_old', false, '2020-01-01')`,
    [id, alice.userId, key],
  );
  const secrets = () =>
    iora.sql(
      `SELECT is_active AS active, revoked_at::date::text AS day FROM api_keys WHERE family_id = $1 ORDER BY 2`,
      [id],
    );
  await iora.app.database.write(alice, async (tx) => {
    await tx
      .selectFrom('api_keys')
      .where('family_id', '=', id)
      .where('is_active', '=', false)
      .select('id')
      .forUpdate()
      .executeTakeFirstOrThrow();
    assert.equal(await code('keys.revoke', alice, { id }), 'ok');
  });
  const [before, now] = await secrets();
  assert.deepEqual(before, { active: false, day: '2020-01-01' }, 'the first moment stands');
  assert.ok(!now.active && now.day > before.day);
});

test('revocations of one key at the same moment agree on when it was', async () => {
  const alice = await person();
  const { id } = await create(alice);
  const answers = await Promise.all(
    Array.from({ length: 5 }, () => iora.output<{ revokedAt: string }>('keys.revoke', alice, { id })),
  );
  assert.equal(new Set(answers.map((answer) => answer.revokedAt)).size, 1);
  const rows = await iora.sql(
    `SELECT changes->>'again' AS again FROM audit_logs WHERE resource_id = $1 AND action = 'api_key_revoked'`,
    [id],
  );
  assert.deepEqual(rows.map((row) => row.again).toSorted(), ['false', 'true', 'true', 'true', 'true']);
});

test('of twenty creations at once exactly as many succeed as the tier allows', async () => {
  const alice = await person(5);
  await create(alice, { name: 'first' });
  const codes = await Promise.all(Array.from({ length: 20 }, () => code('keys.create', alice, { name: 'x' })));
  assert.equal(codes.filter((item) => item === 'ok').length, 4);
  assert.equal(codes.filter((item) => item === 'key_limit_reached').length, 16);
  assert.equal((await listAll(alice)).length, 5);
});

test('revoked and expired keys make room, and the refusal says how many there may be', async () => {
  const alice = await person(2);
  const [one] = [await create(alice), await create(alice)];
  const refused = await iora.call('keys.create', alice, { name: 'x' });
  assert.ok(!refused.ok && refused.error.code === 'key_limit_reached');
  assert.equal(refused.error.details['limit'], 2);
  await iora.output('keys.revoke', alice, { id: one.id });
  const short = await create(alice);
  assert.equal(await code('keys.create', alice, { name: 'x' }), 'key_limit_reached');
  await iora.sql(`UPDATE api_key_families SET expires_at = now() - interval '1 second' WHERE id = $1`, [short.id]);
  await create(alice);
  assert.equal((await get(alice, short.id)).status, 'expired');
  assert.equal(
    await code('keys.update', alice, { id: short.id, expiresAt: null }),
    'not_found',
    'an expired key is not revived',
  );
  assert.equal(await code('keys.revoke', alice, { id: short.id }), 'ok');
});

test('a key that expires is refused from that moment, also when it is remembered', async () => {
  const alice = await person();
  const soon = new Date(Date.now() + 400).toISOString();
  const { key, id } = await create(alice, { expiresAt: soon });
  assert.equal((await iora.bearer(key)).key?.expiresAt?.toISOString(), soon);
  await new Promise((resolve) => setTimeout(resolve, new Date(soon).getTime() - Date.now() + 5));
  await assert.rejects(iora.bearer(key), { code: 'unauthenticated' });
  assert.equal((await get(alice, id)).status, 'expired');
});

test('an update takes effect at once, on what it names and nothing else', async () => {
  const alice = await person();
  const { id, key } = await create(alice, { name: 'before', requestsPerMinute: 7 });
  await iora.bearer(key);
  const expiresAt = new Date(Date.now() + 3_600_000).toISOString();
  const changed = await iora.output<KeyRecord>('keys.update', alice, {
    id,
    permissions: ['usage:read', 'tools:read'],
    expiresAt,
  });
  assert.deepEqual(
    [changed.name, changed.requestsPerMinute, changed.permissions, changed.expiresAt],
    ['before', 7, ['usage:read', 'tools:read'], expiresAt],
  );
  const principal = await iora.bearer(key);
  assert.deepEqual([...principal.permissions], ['usage:read', 'tools:read']);
  assert.equal(principal.key?.expiresAt?.toISOString(), expiresAt);
  const cleared = await iora.output<KeyRecord>('keys.update', alice, {
    id,
    expiresAt: null,
    requestsPerMinute: null,
    name: 'after',
  });
  assert.deepEqual([cleared.name, cleared.expiresAt, cleared.requestsPerMinute], ['after', null, null]);
  const [row] = await iora.sql(
    `SELECT changes FROM audit_logs WHERE resource_id = $1 ORDER BY created_at DESC LIMIT 1`,
    [id],
  );
  assert.deepEqual(row.changes, {
    before: { name: 'before', expiresAt, requestsPerMinute: 7 },
    after: { name: 'after', expiresAt: null, requestsPerMinute: null },
  });
});

test('an update that names nothing is invalid, however it is spelt', async () => {
  const alice = await person();
  const { id } = await create(alice);
  for (const input of [{ id }, { id, name: undefined }, { id, name: undefined, expiresAt: undefined }]) {
    assert.equal(await code('keys.update', alice, input), 'invalid_input');
  }
});

test("another tenant's key is not there, exactly as one that never was", async () => {
  const [alice, mallory] = [await person(), await person()];
  const { id } = await create(alice);
  const before = await get(alice, id);
  for (const [name, change] of [
    ['keys.get', {}],
    ['keys.update', { name: 'mine' }],
    ['keys.revoke', {}],
  ] as const) {
    const [theirs, none] = await Promise.all(
      [id, randomUUID()].map(async (asked) => {
        const outcome = await iora.call(name, mallory, { id: asked, ...change });
        return outcome.ok
          ? 'ok'
          : { code: outcome.error.code, message: outcome.error.message, details: outcome.error.details };
      }),
    );
    assert.deepEqual(theirs, none);
    assert.equal((theirs as { code: string }).code, 'not_found');
  }
  assert.deepEqual(await get(alice, id), before);
  assert.deepEqual(await listAll(mallory), []);
});

test('a key makes nothing stronger than itself: permissions, environment, life, limits', async () => {
  const alice = await person(500);
  const expiresAt = new Date(Date.now() + 3_600_000).toISOString();
  const permissions = ['keys:write', 'keys:read', 'tools:read'];
  const parent = await create(alice, {
    permissions,
    expiresAt,
    requestsPerMinute: 10,
    requestsPerMonth: 100,
    environment: 'test',
  });
  const key = await iora.bearer(parent.key);
  const fits = {
    name: 'child',
    permissions: ['tools:read'],
    expiresAt,
    requestsPerMinute: 10,
    requestsPerMonth: 99,
    environment: 'test',
  };
  const later = new Date(Date.now() + 7_200_000).toISOString();

  const child = await create(key, fits);
  const excesses = [
    { permissions: ['tools:read', 'usage:read'] },
    { environment: 'live' },
    { expiresAt: later },
    { expiresAt: undefined },
    { requestsPerMinute: 11 },
    { requestsPerMinute: null },
    { requestsPerMonth: undefined },
  ];
  for (const excess of excesses) {
    assert.equal(await code('keys.create', key, { ...fits, ...excess }), 'forbidden', JSON.stringify(excess));
  }
  const changes = [
    { permissions: ['usage:read'] },
    { expiresAt: later },
    { expiresAt: null },
    { requestsPerMinute: 11 },
    { requestsPerMonth: null },
  ];
  for (const id of [parent.id, child.id]) {
    for (const change of changes) {
      assert.equal(await code('keys.update', key, { id, ...change }), 'forbidden', JSON.stringify(change));
    }
    assert.equal(await code('keys.update', key, { id, name: 'renamed', requestsPerMinute: 5 }), 'ok');
  }
  // A key without bounds of its own hands on what it has.
  const free = await iora.bearer((await create(alice, { permissions })).key);
  assert.equal(await code('keys.create', free, { name: 'child', environment: 'test' }), 'ok');
  assert.equal(await code('keys.create', free, { name: 'child', expiresAt: later, requestsPerMinute: 1_000 }), 'ok');
  assert.equal(await code('keys.create', free, { name: 'child', permissions: ['tools:write'] }), 'forbidden');
});

test('each role may what it may, and a member sees only what is its own', async () => {
  const org = organization();
  const owner = await iora.session(email(), org);
  assert.equal(owner.role, 'owner');
  const admin = await iora.member(email(), org, 'admin');
  const member = await iora.member(email(), org, 'member');
  const viewer = await iora.member(email(), org, 'viewer');
  assert.equal(new Set([owner, admin, member, viewer].map((principal) => principal.ownerId)).size, 1);

  const [byOwner, byAdmin, byMember] = [
    await create(owner),
    await create(admin),
    await create(member, { permissions: ['keys:read', 'keys:write'] }),
  ];
  assert.equal(await code('keys.create', viewer, { name: 'x' }), 'forbidden');
  assert.equal(await code('keys.revoke', viewer, { id: byOwner.id }), 'forbidden');
  assert.equal(await code('keys.update', viewer, { id: byOwner.id, name: 'x' }), 'forbidden');

  const seen = async (principal: Principal) => (await listAll(principal)).map((item) => item.id).toSorted();
  const all = [byOwner.id, byAdmin.id, byMember.id].toSorted();
  for (const principal of [owner, admin, viewer]) assert.deepEqual(await seen(principal), all);
  const ofMember = await iora.bearer(byMember.key);
  assert.equal(ofMember.role, 'member');
  for (const principal of [member, ofMember]) {
    assert.deepEqual(await seen(principal), [byMember.id]);
    for (const name of ['keys.get', 'keys.revoke'])
      assert.equal(await code(name, principal, { id: byAdmin.id }), 'not_found');
    assert.equal(await code('keys.update', principal, { id: byAdmin.id, name: 'mine' }), 'not_found');
  }
  assert.equal(await code('keys.update', admin, { id: byMember.id, name: 'looked after' }), 'ok');
  assert.equal(await code('keys.revoke', owner, { id: byMember.id }), 'ok');
});

test('a key of an organization goes on with what its creator may still do, and without a hold on keys when that one is gone', async () => {
  const org = organization();
  const owner = await iora.session(email(), org);
  const all = ['tools:read', 'tools:write', 'keys:read', 'keys:write', 'usage:read'];
  const withoutKeys = ['tools:read', 'tools:write', 'usage:read'];
  for (const [change, left] of [
    [`UPDATE organization_members SET role = 'admin' WHERE user_id = $1`, all],
    [`UPDATE organization_members SET role = 'viewer' WHERE user_id = $1`, ['keys:read', 'usage:read']],
    ['DELETE FROM organization_members WHERE user_id = $1', withoutKeys],
    ['UPDATE users SET suspended_at = now() WHERE id = $1', withoutKeys],
  ] as [string, string[]][]) {
    const creator = await iora.member(email(), org, 'member');
    const made = await create(creator, { permissions: all });
    await iora.sql(change, [creator.userId]);
    const principal = await iora.bearer(made.key);
    assert.deepEqual([...principal.permissions].toSorted(), left.toSorted(), change);
    assert.equal(await code('keys.list', principal), left.includes('keys:read') ? 'ok' : 'forbidden');
    assert.equal(await code('keys.revoke', owner, { id: made.id }), 'ok', 'the organization may still end it');
  }
});

test('what a key may not do, and what only a key may', async () => {
  const alice = await person();
  const key = await iora.bearer((await create(alice)).key);
  assert.equal(await code('keys.create', key, { name: 'x' }), 'forbidden');
  assert.equal(await code('keys.list', key), 'forbidden');
  assert.equal(await code('usage.get', key), 'forbidden');
  assert.equal(await code('keys.current', alice), 'forbidden');
  const current = await iora.output<{ id: string; tier: string; limits: { policy: string; limit: number }[] }>(
    'keys.current',
    key,
  );
  assert.equal(current.id, key.key?.id);
  assert.deepEqual(
    current.limits.map(({ policy, limit }) => [policy, limit]),
    [
      ['month', 10_000],
      ['minute', 60],
    ],
  );
});

/** A key that was there for a moment. */
async function makeAndForget(owner: Principal): Promise<void> {
  const { id } = await create(owner);
  await iora.sql('DELETE FROM api_keys WHERE family_id = $1', [id]);
  await iora.sql('DELETE FROM api_key_families WHERE id = $1', [id]);
}

test('a key that ended while its call was under way makes, rotates and changes nothing any more', async () => {
  const alice = await person(100);
  const target = await create(alice);
  const before = await get(alice, target.id);
  const ends = [
    'UPDATE api_key_families SET revoked_at = now() WHERE id = $1',
    'UPDATE api_key_families SET expires_at = now() WHERE id = $1',
    'UPDATE api_keys SET is_active = false WHERE family_id = $1',
    'UPDATE api_keys SET revoked_at = now() WHERE family_id = $1',
    'UPDATE api_keys SET expires_at = now() WHERE family_id = $1',
    'UPDATE api_keys SET leaked_at = now() WHERE family_id = $1',
  ];
  for (const end of ends) {
    const calling = await create(alice, { permissions: ['keys:write', 'tools:read'] });
    const underWay = await iora.bearer(calling.key);
    assert.equal(await code('keys.update', underWay, { id: target.id, name: before.name }), 'ok');
    await iora.sql(end, [calling.id]);
    for (const [name, input] of [
      ['keys.create', { name: 'x' }],
      ['keys.rotate', { id: target.id }],
      ['keys.update', { id: target.id, name: 'x' }],
    ] as const) {
      assert.equal(await code(name, underWay, input), 'unauthenticated', `${name} after ${end}`);
    }
  }
  assert.deepEqual({ ...(await get(alice, target.id)), updatedAt: '' }, { ...before, updatedAt: '' });
  assert.equal((await listAll(alice)).length, 1 + ends.length);
});

test('pages of any size, taken while keys are made, show every key once, newest first', async () => {
  const alice = await person(500);
  for (let made = 0; made < 23; made += 1) await create(alice, { name: `key ${made}` });
  const expected = (await listAll(alice)).map((item) => item.id);
  assert.equal(expected.length, 23);
  assert.deepEqual(expected, expected.toSorted().reverse());

  await fc.assert(
    fc.asyncProperty(fc.infiniteStream(fc.integer({ min: 1, max: 30 })), async (sizes) => {
      const seen: string[] = [];
      let cursor: string | null | undefined;
      for (let pages = 0; cursor !== null; pages += 1) {
        assert.ok(pages <= expected.length, 'paging must end');
        const limit = sizes.next().value as number;
        const page = await iora.output<{ items: KeyRecord[]; nextCursor: string | null }>('keys.list', alice, {
          limit,
          ...(cursor === undefined ? {} : { cursor }),
        });
        assert.ok(page.items.length === limit || page.nextCursor === null);
        assert.ok(page.items.length > 0, 'no page is empty');
        seen.push(...page.items.map((item) => item.id));
        if (pages === 0) await makeAndForget(alice);
        cursor = page.nextCursor;
      }
      assert.deepEqual(seen, expected);
    }),
    { numRuns: 12 },
  );
});

test('cursors that were never handed out are invalid, or show nothing that is not ours', async () => {
  const [alice, bob] = [await person(), await person()];
  const { id } = await create(alice);
  const { id: ofBob } = await create(bob);
  const genuine = encodeCursor([ofBob]);
  const list = (cursor: unknown) => iora.call('keys.list', alice, { cursor });
  for (const cursor of [
    encodeCursor([ofBob.toUpperCase()]),
    encodeCursor([id, id]),
    encodeCursor([1]),
    `${genuine}=`,
    `${genuine} `,
    '',
    'x',
    '\0',
    'é'.repeat(600),
    7,
    null,
    [genuine],
  ]) {
    const outcome = await list(cursor);
    assert.equal(outcome.ok ? 'ok' : outcome.error.code, 'invalid_input', JSON.stringify(cursor));
  }
  await fc.assert(
    fc.asyncProperty(
      fc.oneof(
        fc.string({ unit: 'binary' }),
        fc.base64String(),
        fc.json().map((text) => Buffer.from(text).toString('base64url')),
        fc
          .tuple(fc.nat({ max: genuine.length - 1 }), fc.base64String({ minLength: 4, maxLength: 4 }))
          .map(([at, text]) => genuine.slice(0, at) + text.slice(0, 1) + genuine.slice(at + 1)),
        fc.uuid().map((text) => encodeCursor([text])),
      ),
      async (cursor) => {
        const outcome = await list(cursor);
        if (!outcome.ok) return assert.equal(outcome.error.code, 'invalid_input');
        for (const item of (outcome.output as { items: KeyRecord[] }).items) assert.equal(item.id, id);
      },
    ),
    { numRuns: 100 },
  );
});

test('input of any shape is taken as it is or refused, never a failure of ours and never kept when refused', async () => {
  const alice = await person(100_000);
  const mostly = <T, U>(good: fc.Arbitrary<T>, bad: fc.Arbitrary<U>) =>
    fc.oneof({ weight: 9, arbitrary: good }, { weight: 1, arbitrary: bad });
  const moments = mostly(
    fc.oneof(
      fc
        .date({ noInvalidDate: true, min: new Date('2027-01-01'), max: new Date('9999-12-31') })
        .map((date) => date.toISOString()),
      fc.constantFrom('9999-12-31T23:59:59.999Z', '9999-12-31T23:59:59+14:00', '2027-01-01T00:00:00.123456789Z'),
    ),
    fc.constantFrom(
      '9999-12-31T23:59:59-14:00',
      '0000-01-01T00:00:00Z',
      '2024-02-30T00:00:00Z',
      '2027-01-01',
      'now',
      '',
      7,
    ),
  );
  const halves = fc.string({
    unit: fc.integer({ min: 0xd7f0, max: 0xe010 }).map((unit) => String.fromCharCode(unit)),
    maxLength: 5,
  });
  const names = mostly(
    fc.oneof(
      fc.string({ unit: 'grapheme', minLength: 1, maxLength: 40 }),
      fc.constantFrom('\u2028x', '💶', 'ﷺ'.repeat(100), '"; drop table users; --'),
    ),
    fc.oneof(
      halves,
      fc.string({ unit: 'binary', maxLength: 110 }),
      fc.constantFrom('half \udc00 pair', 'x\0y', ' ', '\t', 'x'.repeat(101)),
    ),
  );
  const permissions = mostly(
    fc.subarray(['tools:read', 'tools:write', 'keys:read', 'keys:write', 'usage:read'], { minLength: 1 }),
    fc.array(fc.constantFrom('tools:read', 'admin:write', ''), { maxLength: 7 }),
  );
  const limits = mostly(
    fc.oneof(fc.constantFrom(1, 1_000_000_000, null), fc.integer({ min: 1, max: 1_000 })),
    fc.constantFrom(0, -1, 1.5, 2 ** 31, 1e21, '5'),
  );
  const input = fc.record(
    {
      name: names,
      permissions,
      environment: mostly(fc.constantFrom('live', 'test'), fc.constant('prod')),
      expiresAt: moments,
      requestsPerMinute: limits,
      requestsPerMonth: limits,
    },
    { requiredKeys: ['name'] },
  );
  let [taken, refused] = [0, 0];
  await fc.assert(
    fc.asyncProperty(input, async (request) => {
      const made = await iora.call('keys.create', alice, request);
      if (!made.ok) {
        refused += 1;
        return assert.equal(made.error.code, 'invalid_input', JSON.stringify(request));
      }
      taken += 1;
      const { id, key, name } = made.output as { id: string; key: string; name: string };
      assert.equal(name, request.name);
      assert.equal((await get(alice, id)).name, request.name, 'what is kept is what was asked for');
      assert.equal((await iora.bearer(key)).key?.id, id);
      const changed = await iora.call('keys.update', alice, { ...request, environment: undefined, id });
      assert.ok(changed.ok || changed.error.code === 'invalid_input', changed.ok ? '' : String(changed.error.cause));
    }),
    { numRuns: 200 },
  );
  assert.ok(taken > 60 && refused > 30, `${taken} taken, ${refused} refused`);
  const [{ count }] = await iora.sql('SELECT count(*)::int AS count FROM api_key_families WHERE owner_id = $1', [
    alice.ownerId,
  ]);
  assert.equal(count, taken);
});
