import assert from 'node:assert/strict';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { after, before, test } from 'node:test';
import { SignJWT, UnsecuredJWT } from 'jose';
import {
  credentialsOf,
  startApplication,
  type TestApplication,
  testSecrets,
  until,
} from '../../../test/support/application.ts';
import { type TestCluster, type TestDatabase, testCluster } from '../../../test/support/postgres.ts';
import { AppError, toProblem } from '../../kernel/errors.ts';
import { blindIndex, open } from '../../lib/envelope.ts';
import { generateKey } from '../../lib/key-format.ts';
import { createPrincipalCache } from '../keys/index.ts';
import { createLocalIdentity, createPeople, createSessions, LOCAL_ISSUER, signLocalToken } from './index.ts';
import type { People, PersonClaims } from './people.ts';

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

let unused = 0;
function email(): string {
  unused += 1;
  return `person-${unused}@example.com`;
}
function slug(): string {
  unused += 1;
  return `org-${unused}`;
}

const claimsOf = (address: string, orgSlug: string | null = null): PersonClaims => ({
  issuer: LOCAL_ISSUER,
  subject: address,
  email: address,
  organization: orgSlug === null ? null : { externalId: orgSlug, slug: orgSlug, name: orgSlug, role: null },
  sessionId: null,
  issuedAt: new Date(),
});
const resolve = async (claims: PersonClaims, people: People = iora.app.people) =>
  (await people.resolve(claims)) ?? assert.fail('the person is gone');

test('twenty first calls of one person at once make one person and one organization, whose owner it is', async () => {
  const [address, org] = [email(), slug()];
  const [before] = await iora.sql('SELECT count(*)::int AS users FROM users');
  // Past the cache, which would ask once for all of them.
  const people = await Promise.all(Array.from({ length: 20 }, () => resolve(claimsOf(address, org))));
  assert.equal(new Set(people.map((person) => `${person.userId} ${person.orgId} ${person.role}`)).size, 1);
  assert.equal(people[0]?.role, 'owner');
  const [after] = await iora.sql('SELECT count(*)::int AS users FROM users');
  assert.equal(after.users - before.users, 1);
  const signedIn = await iora.session(address, org);
  assert.deepEqual(
    [signedIn.userId, signedIn.orgId, signedIn.ownerId],
    [people[0]?.userId, people[0]?.orgId, people[0]?.orgId],
  );
  const alone = await iora.session(address);
  assert.deepEqual(
    [alone.userId, alone.orgId, alone.ownerId, alone.role],
    [signedIn.userId, null, signedIn.userId, null],
  );
});

test('of many who are first in an organization at once one is its owner, the others are members', async () => {
  const org = slug();
  const people = await Promise.all(Array.from({ length: 12 }, () => resolve(claimsOf(email(), org))));
  assert.equal(new Set(people.map((person) => person.orgId)).size, 1);
  const roles = people.map((person) => person.role).toSorted();
  assert.deepEqual(roles, [...Array.from({ length: 11 }, () => 'member'), 'owner']);
});

/** The public face of a refusal. */
async function refusal(credential: string): Promise<unknown> {
  const thrown = await iora.bearer(credential).then(
    () => assert.fail('it was accepted'),
    (error: unknown) => error,
  );
  assert.ok(thrown instanceof AppError, String(thrown));
  return toProblem(thrown, 'r');
}

test('tokens that are not ours, not for us, not whole or not fresh are refused like an unknown key', async () => {
  const secret = iora.secrets.localIdentity ?? assert.fail();
  const address = email();
  const [before] = await iora.sql('SELECT count(*)::int AS users FROM users');
  const genuine = await iora.token(address);
  const [head = '', body = '', signature = ''] = genuine.split('.');
  const now = Math.floor(Date.now() / 1_000);
  const claims = (change: object = {}) =>
    new SignJWT({ sub: address, iss: LOCAL_ISSUER, aud: 'iora', iat: now, exp: now + 60, ...change });
  const sign = (change: object, key: Parameters<SignJWT['sign']>[0] = secret, alg = 'HS256') =>
    claims(change).setProtectedHeader({ alg }).sign(key);
  const altered = Buffer.from(
    JSON.stringify({ ...JSON.parse(Buffer.from(body, 'base64url').toString()), admin: true }),
  ).toString('base64url');
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2_048 });
  const wrong: Record<string, string> = {
    'altered claims': `${head}.${altered}.${signature}`,
    'altered signature': `${head}.${body}.${signature.startsWith('x') ? 'y' : 'x'}${signature.slice(1)}`,
    'no signature': `${head}.${body}.`,
    'alg none': new UnsecuredJWT({ sub: address })
      .setIssuer(LOCAL_ISSUER)
      .setAudience('iora')
      .setExpirationTime('1h')
      .encode(),
    'another secret': await sign({}, randomBytes(32)),
    'another algorithm': await sign({}, randomBytes(64), 'HS512'),
    'ours under another algorithm': await sign({}, Buffer.concat([secret, secret]), 'HS512'),
    'a public key algorithm': await sign({}, privateKey, 'RS256'),
    'foreign issuer': await sign({ iss: 'https://elsewhere.example' }),
    'foreign audience': await sign({ aud: 'other' }),
    'no audience': await sign({ aud: undefined }),
    expired: await sign({ exp: now - 1 }),
    'without an end': await sign({ exp: undefined }),
    'without its beginning': await sign({ iat: undefined }),
    'not yet valid': await sign({ nbf: now + 60 }),
    'no subject': await sign({ sub: undefined }),
    'subject that is no email': await sign({ sub: 'x' }),
    'hostile organization': await sign({ org: "x'; drop table users" }),
    'organization that is no text': await sign({ org: { a: 1 } }),
    'admin that is no answer': await sign({ admin: 'true' }),
    nonsense: 'a.b.c',
    'too long': `${head}.${'A'.repeat(9_000)}.${signature}`,
  };
  const expected = await refusal(generateKey('live'));
  for (const [what, token] of Object.entries(wrong)) assert.deepEqual(await refusal(token), expected, what);
  const [after] = await iora.sql('SELECT count(*)::int AS users FROM users');
  assert.equal(after.users, before.users, 'nobody was made known');
  assert.equal((await iora.bearer(await sign({}))).kind, 'session', 'the way they are made here is right');
});

test('headers that hold no bearer are refused, and so is every token where there is no local identity', async () => {
  const token = await iora.token(email());
  for (const authorization of [
    undefined,
    '',
    token,
    `Basic ${token}`,
    'Bearer',
    `Bearer ${token} x`,
    `Bearer\t${token}`,
  ]) {
    await assert.rejects(async () => iora.app.authenticate(credentialsOf({ authorization })), {
      code: 'unauthenticated',
    });
  }
  const production = await startApplication(database, { secrets: { ...iora.secrets, localIdentity: null } });
  await assert.rejects(production.bearer(token), { code: 'unauthenticated' });
  await production.close();
});

test('an email is stored only sealed, and found by its blind index', async () => {
  const address = email();
  const { userId } = await iora.session(address.toUpperCase());
  assert.equal((await iora.session(address)).userId, userId, 'case makes no other person');
  const [row] = await iora.sql('SELECT * FROM users WHERE id = $1', [userId]);
  const [dataKey] = iora.secrets.dataKeys;
  assert.equal(
    open(row.email_ciphertext, iora.secrets.dataKeys, { table: 'users', column: 'email', row: String(userId) }),
    address,
  );
  assert.deepEqual(row.email_blind_index, blindIndex(address, dataKey));
  assert.equal(row.data_key_version, 1);

  const [{ text }] = await iora.sql(`SELECT string_agg(u::text, ' ') AS text FROM users u`);
  const hex = (value: string) => Buffer.from(value).toString('hex');
  for (const trace of [address, address.split('@')[0] ?? '', hex(address)])
    assert.equal(text.toLowerCase().includes(trace), false, trace);
});

test('an email that another active person has stays theirs; a person may have none', async () => {
  const address = email();
  const first = await resolve({ ...claimsOf(address), issuer: 'https://one.example', subject: 'a' });
  const second = await resolve({ ...claimsOf(address), issuer: 'https://two.example', subject: 'b' });
  const third = await resolve({
    ...claimsOf(address),
    issuer: 'https://two.example',
    subject: 'c',
    email: null,
  });
  assert.equal(new Set([first.userId, second.userId, third.userId]).size, 3);
  const rows = await iora.sql(
    'SELECT email_ciphertext IS NULL AS without FROM users WHERE id = ANY ($1) ORDER BY created_at',
    [[first.userId, second.userId, third.userId]],
  );
  assert.deepEqual(
    rows.map((row) => row.without),
    [false, true, true],
  );
  assert.equal(
    (await resolve({ ...claimsOf(address), issuer: 'https://two.example', subject: 'b' })).userId,
    second.userId,
  );
});

test('an email moves with its owner within one provider, and to nobody of another', async () => {
  const [address, later] = [email(), email()];
  const of = (subject: string, its: string | null, issuer = 'https://one.example') =>
    resolve({ ...claimsOf(address), issuer, subject, email: its, issuedAt: new Date() });
  const holders = async (its: string) => {
    const index = blindIndex(its, iora.secrets.dataKeys[0]);
    const rows = await iora.sql('SELECT id FROM users WHERE email_blind_index = $1 AND is_active', [index]);
    return rows.map(({ id }) => id);
  };
  const first = await of('moves-a', address);
  assert.deepEqual(await holders(address), [first.userId]);
  await of('moves-a', later);
  assert.deepEqual([await holders(address), await holders(later)], [[], [first.userId]]);
  const second = await of('moves-b', later);
  assert.deepEqual(await holders(later), [second.userId], 'whom the provider vouched for last has it');
  await of('moves-c', later, 'https://two.example');
  assert.deepEqual(await holders(later), [second.userId]);
  const [row] = await iora.sql('SELECT email_ciphertext FROM users WHERE id = $1', [second.userId]);
  const context = { table: 'users', column: 'email', row: String(second.userId) };
  assert.equal(open(row.email_ciphertext, iora.secrets.dataKeys, context), later);
});

test('who somebody is at a provider does not hang on their email', async () => {
  const address = email();
  const of = (subject: string, its: string | null) =>
    resolve({ ...claimsOf(address), issuer: 'https://one.example', subject, email: its });
  const named = await of(address, address);
  assert.equal((await of(address, null)).userId, named.userId);
  assert.notEqual((await of(address.toUpperCase(), address)).userId, named.userId, 'a subject is case-sensitive');
});

test('people stay who they are when a newer data key is put in front', async () => {
  const address = email();
  const { userId } = await iora.session(address);
  const [old] = iora.secrets.dataKeys;
  const rotated = createPeople({
    database: iora.app.database,
    dataKeys: [{ version: 2, secret: randomBytes(32) }, old],
  });
  assert.equal((await resolve(claimsOf(address), rotated)).userId, userId);
});

test('the same slug at another provider is another organization, and the slug stays with the first', async () => {
  const org = slug();
  const first = await iora.session(email(), org);
  const other = await resolve({ ...claimsOf(email(), org), issuer: 'https://elsewhere.example' });
  assert.notEqual(other.orgId, first.orgId);
  assert.equal(other.role, 'owner');
  assert.deepEqual(await iora.sql('SELECT id FROM organizations WHERE slug = $1', [org]), [{ id: first.orgId }]);
});

test('who is suspended or closed is refused from the moment it is told, and asked about once, not at every call', async () => {
  const org = slug();
  const address = email();
  const { userId, orgId } = await iora.session(address, org);
  const token = await iora.token(address, org);
  const tell = (tag: string) =>
    iora.sql(
      `SELECT pg_notify('iora_invalidate', json_build_object('id', gen_random_uuid(), 'tags', json_build_array($1::text))::text)`,
      [tag],
    );
  const accepted = () =>
    iora.bearer(token).then(
      () => true,
      () => false,
    );
  for (const [table, column, value, id, tag] of [
    ['users', 'suspended_at', 'now()', userId, `user:${userId}`],
    ['organizations', 'suspended_at', 'now()', orgId, `owner:${orgId}`],
    ['users', 'is_active', 'false', userId, `user:${userId}`],
    ['organizations', 'is_active', 'false', orgId, `owner:${orgId}`],
  ] as const) {
    await iora.sql(`UPDATE ${table} SET ${column} = ${value} WHERE id = $1`, [id]);
    await tell(tag);
    await until(async () => !(await accepted()), `${table}.${column} is obeyed`);
    await iora.sql(`UPDATE ${table} SET ${column} = DEFAULT WHERE id = $1`, [id]);
    await tell(tag);
    await until(accepted, `${table}.${column} is lifted`);
  }
});

test('a refused person is remembered as refused', async () => {
  const secret = testSecrets().localIdentity ?? assert.fail();
  const address = email();
  const { userId } = await iora.session(address);
  await iora.sql('UPDATE users SET suspended_at = now() WHERE id = $1', [userId]);
  let asked = 0;
  const people = {
    resolve(claims: PersonClaims) {
      asked += 1;
      return iora.app.people.resolve(claims);
    },
  };
  const cache = createPrincipalCache({
    entriesMax: 10,
    freshMs: () => 60_000,
    outageGraceMs: 0,
    monotonicMs: () => performance.now(),
    wallClockMs: () => Date.now(),
  });
  const identity = createLocalIdentity({ secret, sessions: createSessions({ people, cache }) });
  const token = await signLocalToken(secret, { email: address });
  for (let call = 0; call < 5; call += 1)
    await assert.rejects(async () => identity.authenticate(token), { code: 'unauthenticated' });
  assert.equal(asked, 1);
});

test('administrators are those the token or the table names, and only with a session', async () => {
  const address = email();
  const plain = await iora.session(address);
  assert.equal(plain.permissions.has('admin:read'), false);
  assert.equal((await iora.bearer(await iora.token(address, undefined, true))).permissions.has('admin:write'), true);
  const { key } = await iora.output<{ key: string }>(
    'keys.create',
    await iora.bearer(await iora.token(address, undefined, true)),
    { name: 'x' },
  );
  assert.equal((await iora.bearer(key)).permissions.has('admin:read'), false);
  const named = email();
  await resolve(claimsOf(named));
  await iora.sql(`UPDATE users SET platform_permissions = '{admin:read}' WHERE email_blind_index = $1`, [
    blindIndex(named, iora.secrets.dataKeys[0]),
  ]);
  const admin = await iora.session(named);
  assert.deepEqual([admin.permissions.has('admin:read'), admin.permissions.has('admin:write')], [true, false]);
});
