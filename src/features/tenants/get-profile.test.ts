import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, test } from 'node:test';
import { startApplication, type TestApplication } from '../../../test/support/application.ts';
import { type TestCluster, testCluster } from '../../../test/support/postgres.ts';
import { seal } from '../../lib/envelope.ts';

// What people see of themselves: GET /user/profile and GET /user/organizations.

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

interface Listed {
  items: { id: string; name: string; slug: string; role: string; tier: string; joinedAt: string }[];
  nextCursor: string | null;
}

test('a person sees themselves, with names in the clear, and the organization they act in', async () => {
  const alice = await iora.member('alice@example.com', 'acme', 'admin');
  const { userId, orgId } = alice;
  assert.ok(userId);
  const sealed = (column: string, text: string) =>
    seal(text, iora.secrets.dataKeys[0], { table: 'users', column, row: userId });
  await iora.sql(
    `UPDATE users SET first_name_ciphertext = $2, last_name_ciphertext = $3, tier = 'pro', platform_permissions = '{admin:read}' WHERE id = $1`,
    [userId, sealed('first_name', 'Alice'), sealed('last_name', 'Łukasiewicz')],
  );
  const { createdAt, lastLoginAt, ...rest } = await iora.output('users.profile', alice);
  assert.deepEqual(rest, {
    id: userId,
    email: 'alice@example.com',
    firstName: 'Alice',
    lastName: 'Łukasiewicz',
    tier: 'pro',
    platformPermissions: ['admin:read'],
    organization: { id: orgId, name: 'acme', slug: 'acme', role: 'admin' },
  });
  assert.ok(Date.parse(String(createdAt)) <= Date.parse(String(lastLoginAt)));
  assert.equal((await iora.output('users.profile', await iora.session('alice@example.com')))['organization'], null);
});

test('a column that cannot be opened is null, and the log says which without what', async () => {
  const person = await iora.session('sealed@example.com');
  const { userId } = person;
  const foreign = seal(
    'Mallory',
    { version: 1, secret: randomBytes(32) },
    {
      table: 'users',
      column: 'last_name',
      row: userId ?? '',
    },
  );
  const unknown = seal(
    'Mallory',
    { version: 9, secret: randomBytes(32) },
    {
      table: 'users',
      column: 'first_name',
      row: userId ?? '',
    },
  );
  await iora.sql('UPDATE users SET last_name_ciphertext = $2, first_name_ciphertext = $3 WHERE id = $1', [
    userId,
    foreign,
    unknown,
  ]);
  const profile = await iora.output('users.profile', person);
  assert.deepEqual([profile['email'], profile['firstName'], profile['lastName']], ['sealed@example.com', null, null]);
  const lines = iora.log.named('a personal column cannot be opened');
  assert.equal(lines.length, 2);
  assert.match(lines.join('\n'), /first_name.*unknown_key[\s\S]*last_name.*not_authentic/);
  assert.doesNotMatch(lines.join('\n'), /Mallory|sealed@example/);
});

test('a person sees the organizations they belong to, page by page, and nobody else’s', async () => {
  const organizations = ['one', 'two', 'three', 'four', 'five'];
  for (const slug of organizations) await iora.session('bob@example.com', slug);
  await iora.session('carol@example.com', 'one');
  await iora.session('carol@example.com', 'carols');
  const bob = await iora.session('bob@example.com', 'one');
  const seen: Listed['items'] = [];
  let cursor: string | null = null;
  let pages = 0;
  do {
    const page: Listed = await iora.output('users.organizations', bob, {
      limit: 2,
      ...(cursor === null ? {} : { cursor }),
    });
    seen.push(...page.items);
    cursor = page.nextCursor;
    pages += 1;
  } while (cursor !== null);
  assert.equal(pages, 3);
  assert.deepEqual(seen.map(({ slug }) => slug).toSorted(), organizations.toSorted());
  assert.equal(new Set(seen.map(({ id }) => id)).size, 5);
  for (const { role, tier, joinedAt } of seen) {
    assert.deepEqual([role, tier], ['owner', 'free']);
    assert.ok(Date.parse(joinedAt) <= Date.now());
  }
  const carol = await iora.output<Listed>('users.organizations', await iora.session('carol@example.com'));
  assert.deepEqual(carol.items.map(({ slug, role }) => [slug, role]).toSorted(), [
    ['carols', 'owner'],
    ['one', 'member'],
  ]);
  await iora.sql(`UPDATE organizations SET is_active = false WHERE slug = 'five'`);
  assert.equal((await iora.output<Listed>('users.organizations', bob)).items.length, 4, 'closed ones are gone');
  const made = await iora.call('users.organizations', bob, { cursor: 'made-up' });
  assert.ok(!made.ok && made.error.code === 'invalid_input');
});

test('keys do not show the person behind them', async () => {
  const { key } = await iora.output<{ key: string }>('keys.create', await iora.session('dan@example.com'), {
    name: 'x',
  });
  for (const operation of ['users.profile', 'users.organizations']) {
    const outcome = await iora.call(operation, await iora.bearer(key));
    assert.ok(!outcome.ok && outcome.error.code === 'forbidden');
  }
});
