import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { after, before, test } from 'node:test';
import { UnsecuredJWT } from 'jose';
import { startApplication, type TestApplication, until } from '../../../test/support/application.ts';
import {
  type IdentityProvider,
  PUBLIC_URL,
  startIdentityProvider,
  type TokenChange,
} from '../../../test/support/identity-provider.ts';
import { type TestCluster, type TestDatabase, testCluster } from '../../../test/support/postgres.ts';
import { AppError } from '../../kernel/errors.ts';
import { createClerkIdentity } from './clerk-identity.ts';
import { openUnverified } from './token-claims.ts';

// Tokens of Clerk at the door of the whole application, by the code of @clerk/backend.

let cluster: TestCluster;
let database: TestDatabase;
let clerk: IdentityProvider;
let iora: TestApplication;
before(async () => {
  cluster = await testCluster();
  database = await cluster.database();
  clerk = await startIdentityProvider();
  iora = await startApplication(database, { settings: clerk.settings.clerk });
});
after(async () => {
  await iora.close();
  await clerk.stop();
  await cluster.stop();
});

const now = () => Math.floor(Date.now() / 1_000);
const attacker = generateKeyPairSync('rsa', { modulusLength: 2_048 }).privateKey;

/** An application and a provider of a test's own. */
async function own(settings: (provider: IdentityProvider) => Readonly<Record<string, string>>, isDown = false) {
  const provider = await startIdentityProvider();
  provider.setDown(isDown);
  const application = await startApplication(database, { settings: settings(provider) });
  return {
    provider,
    application,
    async [Symbol.asyncDispose]() {
      await application.close();
      await provider.stop();
    },
  };
}

/** The public face of a refusal. */
async function refusal(credential: string, application: TestApplication = iora): Promise<AppError> {
  const thrown = await application.bearer(credential).then(
    () => assert.fail('it was accepted'),
    (error: unknown) => error,
  );
  assert.ok(thrown instanceof AppError, String(thrown));
  return thrown;
}

/** Its code and words, which are the same for everything that is wrong with a token. */
const words = ({ code, message }: AppError) => [code, message];

async function everyRefusal(tokens: Readonly<Record<string, string>>): Promise<void> {
  const expected = words(await refusal('iora_pk_live_unknown'));
  assert.equal(expected[0], 'unauthenticated');
  for (const [what, token] of Object.entries(tokens)) assert.deepEqual(words(await refusal(token)), expected, what);
}

test('a session signs its person in, as Clerk names them', async () => {
  const claims = { sub: 'user_alice' };
  const principal = await iora.bearer(await clerk.clerkToken({ claims }));
  assert.deepEqual([principal.kind, principal.orgId, principal.scopes], ['session', null, null]);
  assert.ok(principal.permissions.has('keys:write'));
  const rows = await iora.sql('SELECT id, email_ciphertext FROM users WHERE issuer = $1 AND subject = $2', [
    clerk.clerkIssuer,
    'user_alice',
  ]);
  assert.deepEqual(rows, [{ id: principal.userId, email_ciphertext: null }]);
  const again = await iora.bearer(await clerk.clerkToken({ claims }));
  assert.equal(again.userId, principal.userId);
});

test('whatever is wrong with a token, it is refused in the same words', async () => {
  const [people] = await iora.sql('SELECT count(*)::int FROM users');
  const genuine = await clerk.clerkToken();
  const [head = '', body = '', signature = ''] = genuine.split('.');
  const payload = JSON.parse(Buffer.from(body, 'base64url').toString());
  const encoded = (part: unknown) => Buffer.from(JSON.stringify(part)).toString('base64url');
  const made = (claims: Record<string, unknown>, header = {}) => clerk.clerkToken({ claims, header });
  const none = new UnsecuredJWT(payload).encode();
  await everyRefusal({
    expired: await made({ exp: now() - 6 }),
    'without an end': await made({ exp: undefined }),
    'an end that is no number': await made({ exp: 'never' }),
    'not valid yet': await made({ nbf: now() + 10 }),
    'issued in the future': await made({ iat: now() + 10 }),
    'without its beginning': await made({ iat: undefined }),
    'of another party': await made({ azp: 'https://elsewhere.test' }),
    'of a party that only begins the same': await made({ azp: `${PUBLIC_URL}.elsewhere.test` }),
    'of no party': await made({ azp: undefined }),
    'of another issuer': await made({ iss: 'https://clerk.elsewhere.test' }),
    'of no issuer': await made({ iss: undefined }),
    'made for somebody else': await made({ aud: 'https://elsewhere.test' }),
    'signed by another': await clerk.clerkToken({ key: attacker }),
    'signed by another under a name of its own': await clerk.clerkToken({ key: attacker, header: { kid: 'made-up' } }),
    'alg none': none,
    'alg none with a signature': `${none}${signature}`,
    'HS256 under the public key': await clerk.clerkToken({
      key: Buffer.from(clerk.publicPem()),
      header: { alg: 'HS256' },
    }),
    'HS256 under the public key, named': await clerk.clerkToken({
      key: Buffer.from(`${clerk.publicPem()}\n`),
      header: { alg: 'HS256', kid: JSON.parse(Buffer.from(head, 'base64url').toString()).kid },
    }),
    'ES256, which Clerk does not use': await clerk.clerkToken({ header: { alg: 'ES256' } }),
    'altered claims': `${head}.${encoded({ ...payload, sub: 'user_other' })}.${signature}`,
    'altered header': `${encoded({ ...JSON.parse(Buffer.from(head, 'base64url').toString()), x: 1 })}.${body}.${signature}`,
    'no signature': `${head}.${body}.`,
    'a session with a task left': await made({ sts: 'pending' }),
    'a machine': await made({ sub: 'mch_1' }),
    'a machine by its category': await made({}, { cat: 'cl_B7d4PD333AAA' }),
    'something else of Clerk': await made({}, { cat: 'cl_B7d4PD222AAA' }),
    'a type of its own': await made({}, { typ: 'logout+jwt' }),
    'no person': await made({ sub: undefined }),
    'a person that cannot be kept': await made({ sub: 'user_\u0000' }),
    'a person without end': await made({ sub: `user_${'x'.repeat(300)}` }),
    'an organization that is no text': await made({ org_id: { a: 1 } }),
    'an organization without an id': await made({ o: { rol: 'admin' } }),
    'a session that is no text': await made({ sid: 1 }),
    'a header that is no object': `${encoded(null)}.${body}.${signature}`,
    'claims that are no object': `${head}.${encoded([])}.${signature}`,
    'a kid that is no text': await made({}, { kid: 1 }),
    nonsense: 'a.b.c',
    'no token': 'nonsense',
    'a machine token': 'mt_0123456789abcdef',
    'an API key of Clerk': 'ak_0123456789abcdef',
  });
  assert.deepEqual(await iora.sql('SELECT count(*)::int FROM users'), [people], 'nobody was made known');
});

test('clocks may differ by five seconds, and no more', async () => {
  const accepted = (claims: Record<string, unknown>) =>
    clerk.clerkToken({ claims }).then((token) => iora.bearer(token));
  await accepted({ exp: now() - 2 });
  await accepted({ nbf: now() + 3, iat: now() + 3 });
  await everyRefusal({
    late: await clerk.clerkToken({ claims: { exp: now() - 6 } }),
    early: await clerk.clerkToken({ claims: { nbf: now() + 20 } }),
  });
});

test('a token that was accepted before is refused once it has expired', async () => {
  const token = await clerk.clerkToken({ claims: { exp: now() - 3 } });
  for (let call = 0; call < 3; call += 1) assert.equal((await iora.bearer(token)).kind, 'session');
  await until(
    () =>
      iora.bearer(token).then(
        () => false,
        ({ code }: AppError) => code === 'unauthenticated',
      ),
    'it has expired beyond the skew',
  );
});

test('the signature of a token that was accepted before is verified every time, with the key as it is then', async () => {
  const pairs = [0, 1].map(() => generateKeyPairSync('rsa', { modulusLength: 2_048 }));
  const keys = pairs.map(({ publicKey }) => ({
    key: publicKey,
    pem: publicKey.export({ type: 'spki', format: 'pem' }).toString(),
    algorithms: ['RS256'],
  }));
  let present = 0;
  const identity = createClerkIdentity({
    issuer: clerk.clerkIssuer,
    client: null,
    keys: { find: async () => keys[present] ?? null, prime: () => undefined },
    authorizedParties: [PUBLIC_URL],
    audience: PUBLIC_URL,
    resource: `${PUBLIC_URL}/mcp`,
    sessions: iora.app.sessions,
  });
  const token = openUnverified(await clerk.clerkToken({ key: pairs[0]?.privateKey ?? assert.fail() }));
  assert.ok(token);
  for (let call = 0; call < 2; call += 1) assert.equal((await identity.authenticate(token)).kind, 'session');
  present = 1;
  await assert.rejects(identity.authenticate(token), { code: 'unauthenticated' });
  present = 0;
  assert.equal((await identity.authenticate(token)).kind, 'session');
});

test('other parties are those that are named, and then only those', async () => {
  await using other = await own(({ settings }) => ({
    ...settings.clerkPem,
    CLERK_JWT_KEY: clerk.publicPem(),
    CLERK_AUTHORIZED_PARTIES: 'https://app.iora.test, https://admin.iora.test',
  }));
  const { application } = other;
  for (const azp of ['https://app.iora.test', 'https://admin.iora.test'])
    await application.bearer(await clerk.clerkToken({ claims: { azp } }));
  assert.equal((await refusal(await clerk.clerkToken(), application)).code, 'unauthenticated');
});

test('organizations come in the old form and in the new, roles by their names, the unknown ones as viewers', async () => {
  const roleOf = async (claims: Record<string, unknown>) => {
    const principal = await iora.bearer(await clerk.clerkToken({ claims }));
    const [row] = await iora.sql('SELECT external_id, slug FROM organizations WHERE id = $1', [principal.orgId]);
    return [row?.external_id ?? null, row?.slug ?? null, principal.role];
  };
  const old = (role: string, id = 'org_old') => roleOf({ v: undefined, org_id: id, org_slug: 'old', org_role: role });
  assert.deepEqual(await old('org:admin'), ['org_old', 'old', 'admin']);
  assert.deepEqual(await old('org:member'), ['org_old', 'old', 'member']);
  assert.deepEqual(await old('owner'), ['org_old', 'old', 'owner']);
  assert.deepEqual(await old('org:billing_manager'), ['org_old', 'old', 'viewer']);
  assert.deepEqual(await old('org:org:admin'), ['org_old', 'old', 'viewer']);
  const renewed = (rol: unknown) => roleOf({ o: { id: 'org_new', slg: 'new', rol } });
  assert.deepEqual(await renewed('admin'), ['org_new', 'new', 'admin']);
  assert.deepEqual(await renewed('viewer'), ['org_new', 'new', 'viewer']);
  assert.deepEqual(await renewed('support'), ['org_new', 'new', 'viewer']);
  assert.deepEqual(await renewed(undefined), ['org_new', 'new', 'viewer'], 'a role is not made up');
  assert.deepEqual(await roleOf({ o: { id: 'org_x', slg: 'NO SLUG', rol: 'admin' } }), ['org_x', null, 'admin']);
  assert.deepEqual(await roleOf({}), [null, null, null]);
  const viewer = await iora.bearer(await clerk.clerkToken({ claims: { o: { id: 'org_new', rol: 'support' } } }));
  assert.deepEqual([...viewer.permissions].toSorted(), ['keys:read', 'usage:read']);
});

test('an email is believed only where the token says that it is verified', async () => {
  const emailOf = async (claims: Record<string, unknown>) => {
    const principal = await iora.bearer(await clerk.clerkToken({ claims }));
    return (await iora.output('users.profile', principal))['email'];
  };
  assert.equal(await emailOf({ email: 'Verified@Example.com', email_verified: true }), 'verified@example.com');
  assert.equal(await emailOf({ email: 'claimed@example.com' }), null);
  assert.equal(await emailOf({ email: 'claimed@example.com', email_verified: 'true' }), null);
  assert.equal(await emailOf({ email: 'no email', email_verified: true }), null);
});

test('with the key given, Clerk is never asked for anything', async () => {
  await using other = await own(({ settings }) => settings.clerkPem);
  const { application, provider } = other;
  for (let call = 0; call < 300; call += 1) {
    await application.bearer(await provider.clerkToken({ claims: { sub: `user_${call % 3}` } }));
    if (call % 10 === 0)
      await refusal(await provider.clerkToken({ key: attacker, header: { kid: `k${call}` } }), application);
  }
  assert.deepEqual(provider.requests(), []);
});

test('with keys fetched, one request serves hundreds of calls', async () => {
  await using other = await own(({ settings }) => settings.clerk);
  const { application, provider } = other;
  await until(() => provider.requests().length === 1, 'the keys are fetched at the start, before anybody calls');
  for (let call = 0; call < 300; call += 1) {
    const made = call % 2 === 0 ? provider.clerkToken : provider.oauthToken;
    await application.bearer(await made({ claims: { sub: `user_${call % 3}` } }));
  }
  assert.deepEqual(provider.requests(), ['GET /v1/jwks']);
});

test('a new key is accepted after one fetch, an old one is refused once it is withdrawn, and a flood asks once', async () => {
  await using other = await own(({ settings }) => settings.clerk);
  const { application, provider } = other;
  const before = await provider.clerkToken();
  await application.bearer(before);
  const asked = () => provider.requests().length;
  assert.equal(asked(), 1);
  provider.rotate({ withdraw: true });
  const tokens = await Promise.all(Array.from({ length: 20 }, () => provider.clerkToken()));
  await Promise.all(tokens.map((token) => application.bearer(token)));
  assert.equal(asked(), 2);
  assert.equal((await refusal(before, application)).code, 'unauthenticated');
  const madeUp = (kid: string) => provider.clerkToken({ key: attacker, header: { kid } });
  for (let call = 0; call < 100; call += 1) await refusal(await madeUp(`one by one ${call}`), application);
  await Promise.all(
    Array.from({ length: 100 }, async (_, call) => refusal(await madeUp(`at once ${call}`), application)),
  );
  assert.equal(asked(), 2, 'within the pause nobody is asked');
});

test('while Clerk is away its kept keys work; without any the answer is 503, and then it is well again', async () => {
  await using kept = await own(({ settings }) => settings.clerk);
  await kept.application.bearer(await kept.provider.clerkToken());
  kept.provider.setDown(true);
  for (let call = 0; call < 10; call += 1) await kept.application.bearer(await kept.provider.clerkToken());

  await using away = await own(({ settings }) => settings.clerk, true);
  const refused = await refusal(await away.provider.clerkToken(), away.application);
  assert.deepEqual([refused.code, refused.status, refused.details], ['unavailable', 503, { retryAfterSeconds: 2 }]);
  assert.equal((await refusal('nonsense', away.application)).code, 'unauthenticated');
  away.provider.setDown(false);
  await until(
    () =>
      away.provider
        .clerkToken()
        .then((token) => away.application.bearer(token))
        .then(
          () => true,
          () => false,
        ),
    'the keys are fetched',
  );
  assert.ok(away.provider.requests().length < 10, 'it was not asked all the time');
  assert.doesNotMatch(away.application.log.lines().join('\n'), /sk_test/);
});

test('who is suspended is refused from the announcement on, whatever token they bring', async () => {
  const claims = { sub: 'user_suspended' };
  const { userId } = await iora.bearer(await clerk.clerkToken({ claims }));
  await iora.sql('UPDATE users SET suspended_at = now() WHERE id = $1', [userId]);
  await iora.sql(
    `SELECT pg_notify('iora_invalidate', json_build_object('id', gen_random_uuid(), 'tags', json_build_array($1::text))::text)`,
    [`user:${userId}`],
  );
  const refused = (made: (change: TokenChange) => Promise<string>) =>
    made({ claims })
      .then((token) => iora.bearer(token))
      .then(
        () => false,
        (error) => error.code === 'unauthenticated',
      );
  await until(() => refused(clerk.clerkToken), 'the session is refused');
  assert.ok(await refused(clerk.oauthToken));
});

test('a session that Clerk ended is refused, the others of the person are not', async () => {
  const claims = { sub: 'user_with_sessions', sid: 'sess_ended' };
  await iora.bearer(await clerk.clerkToken({ claims }));
  await iora.sql(`INSERT INTO identity_deletions VALUES ($1, 'session', 'sess_ended', now())`, [clerk.clerkIssuer]);
  await iora.sql(
    `SELECT pg_notify('iora_invalidate', json_build_object('id', gen_random_uuid(), 'tags', json_build_array('session:sess_ended'))::text)`,
  );
  await until(
    () =>
      clerk
        .clerkToken({ claims })
        .then((token) => iora.bearer(token))
        .then(
          () => false,
          () => true,
        ),
    'the session is refused',
  );
  await iora.bearer(await clerk.clerkToken({ claims: { ...claims, sid: 'sess_other' } }));
});

test('an OAuth token is limited to its scopes, which never give more than the person has', async () => {
  const bearer = async (claims: Record<string, unknown>) => iora.bearer(await clerk.oauthToken({ claims }));
  const rights = async (claims: Record<string, unknown>) => [...(await bearer(claims)).permissions].toSorted();
  assert.deepEqual(await rights({}), ['tools:read']);
  assert.deepEqual(await rights({ scope: 'openid tools:read usage:read profile' }), ['tools:read', 'usage:read']);
  assert.deepEqual(await rights({ scope: undefined, scp: ['keys:read', 'email'] }), ['keys:read']);
  assert.deepEqual(await rights({ scope: 'openid profile' }), []);
  assert.deepEqual(await rights({ scope: undefined }), []);
  const viewer = { o: { id: 'org_oauth', rol: 'viewer' } };
  assert.deepEqual(await rights({ ...viewer, scope: 'tools:read keys:read keys:write' }), ['keys:read']);

  const sub = 'user_platform_admin';
  const { userId, orgId, ownerId } = await bearer({ sub });
  assert.deepEqual([orgId, ownerId], [null, userId], 'it acts for what is the person’s own');
  await iora.sql(`UPDATE users SET platform_permissions = '{admin:read,admin:write}' WHERE id = $1`, [userId]);
  await using other = await own(({ settings }) => ({ ...settings.clerk, CLERK_API_URL: clerk.url }));
  const admin = { sub, scope: 'tools:read admin:read admin:write' };
  const limited = await other.application.bearer(await clerk.oauthToken({ claims: admin }));
  assert.deepEqual([...limited.permissions], ['tools:read']);
  assert.deepEqual([...(limited.scopes ?? [])], ['tools:read']);
  assert.ok(
    (await other.application.bearer(await clerk.clerkToken({ claims: { sub } }))).permissions.has('admin:write'),
  );

  const keeper = await bearer({ scope: 'tools:read' });
  const created = await iora.call('keys.create', keeper, { name: 'x' });
  assert.ok(!created.ok && created.error.status === 403);
  assert.ok((await iora.call('market.get_price', keeper, { symbol: 'BTC' })).ok);
  for (const operation of ['users.profile', 'users.organizations']) {
    const outcome = await iora.call(operation, keeper);
    assert.ok(!outcome.ok && outcome.error.status === 403, operation);
  }
});

test('an OAuth token for nobody, for somebody else or by somebody else is refused in the same words', async () => {
  const made = (claims: Record<string, unknown>, header = {}) => clerk.oauthToken({ claims, header });
  await everyRefusal({
    'no audience': await made({ aud: undefined }),
    'empty audience': await made({ aud: [] }),
    'foreign audience': await made({ aud: 'https://elsewhere.test/mcp' }),
    'the server and not its resource': await made({ aud: PUBLIC_URL }),
    'a path below': await made({ aud: `${PUBLIC_URL}/mcp/x` }),
    'a slash more': await made({ aud: `${PUBLIC_URL}/mcp/` }),
    expired: await made({ exp: now() - 6 }),
    'without an end': await made({ exp: undefined }),
    'foreign issuer': await made({ iss: 'https://clerk.elsewhere.test' }),
    'without its beginning': await made({ iat: undefined }),
    'a machine': await made({ sub: 'mch_1' }),
    'signed by another': await clerk.oauthToken({ key: attacker }),
    'HS256 under the public key': await clerk.oauthToken({
      key: Buffer.from(clerk.publicPem()),
      header: { alg: 'HS256' },
    }),
    'an access token that calls itself a session': await made({}, { typ: 'JWT' }),
  });
  await iora.bearer(await made({ aud: ['https://elsewhere.test', `${PUBLIC_URL}/mcp`] }));
  await iora.bearer(await made({}, { typ: 'application/at+jwt' }));
});

test('what cannot be judged here is refused with the setting to change', async () => {
  const opaque = await refusal('oat_0123456789abcdef');
  assert.deepEqual([opaque.code, opaque.status], ['unauthenticated', 401]);
  assert.match(opaque.message, /"Generate access tokens as JWTs"/);
  await using other = await own(({ settings }) => settings.clerkPem);
  const unkeyed = await refusal(await other.provider.oauthToken(), other.application);
  assert.deepEqual([unkeyed.code, unkeyed.status], ['unauthenticated', 401]);
  assert.match(unkeyed.message, /CLERK_SECRET_KEY/);
});

test('the local provider does not exist beside another', async () => {
  assert.equal(iora.app.localIdentity, null);
  assert.deepEqual(iora.app.accessTokenIssuers, [clerk.clerkIssuer]);
  await everyRefusal({ 'a local token': await iora.token('alice@example.com') });
});
