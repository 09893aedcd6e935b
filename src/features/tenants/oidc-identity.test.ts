import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { after, before, test } from 'node:test';
import { UnsecuredJWT } from 'jose';
import { startApplication, type TestApplication, until } from '../../../test/support/application.ts';
import {
  type IdentityProvider,
  PUBLIC_URL,
  type SigningAlgorithm,
  startIdentityProvider,
} from '../../../test/support/identity-provider.ts';
import { type TestCluster, type TestDatabase, testCluster } from '../../../test/support/postgres.ts';
import { AppError } from '../../kernel/errors.ts';

// Tokens of an OIDC issuer at the door of the whole application.

let cluster: TestCluster;
let database: TestDatabase;
let oidc: IdentityProvider;
let iora: TestApplication;
before(async () => {
  cluster = await testCluster();
  database = await cluster.database();
  oidc = await startIdentityProvider();
  iora = await startApplication(database, {
    settings: { ...oidc.settings.oidc, OIDC_AUDIENCE: 'iora-api, iora-console' },
  });
});
after(async () => {
  await iora.close();
  await oidc.stop();
  await cluster.stop();
});

const DISCOVERY = 'GET /.well-known/openid-configuration';
const now = () => Math.floor(Date.now() / 1_000);
const attacker = generateKeyPairSync('rsa', { modulusLength: 2_048 }).privateKey;

/** An application and an issuer of a test's own. */
async function own(
  options: { discovery?: Record<string, unknown>; settings?: Record<string, string>; down?: boolean } = {},
) {
  const provider = await startIdentityProvider(options.discovery === undefined ? {} : { discovery: options.discovery });
  provider.setDown(options.down === true);
  const application = await startApplication(database, {
    settings: { ...provider.settings.oidc, ...options.settings },
  });
  return {
    provider,
    application,
    async [Symbol.asyncDispose]() {
      await application.close();
      await provider.stop();
    },
  };
}

/** Code and words of a refusal. */
async function refusal(credential: string, application: TestApplication = iora): Promise<string[]> {
  const thrown = await application.bearer(credential).then(
    () => assert.fail('it was accepted'),
    (error: unknown) => error,
  );
  assert.ok(thrown instanceof AppError, String(thrown));
  return [thrown.code, thrown.message];
}

const bearer = async (claims: Record<string, unknown> = {}, header: Record<string, unknown> = {}) =>
  iora.bearer(await oidc.oidcToken({ claims, header }));

test('keys of every kind sign people in, as the issuer names them', async () => {
  for (const alg of ['RS256', 'ES256', 'EdDSA'] satisfies SigningAlgorithm[]) {
    const principal = await bearer({ sub: `person-${alg}` }, { alg });
    assert.deepEqual([principal.kind, principal.scopes], ['session', null]);
    assert.ok(principal.permissions.has('keys:write'), alg);
    const rows = await iora.sql('SELECT id FROM users WHERE issuer = $1 AND subject = $2', [
      oidc.issuer,
      `person-${alg}`,
    ]);
    assert.deepEqual(rows, [{ id: principal.userId }]);
  }
  assert.deepEqual(iora.app.accessTokenIssuers, [oidc.issuer]);
});

test('any of the audiences will do, alone or among others', async () => {
  for (const aud of ['iora-api', 'iora-console', ['account', 'iora-console']]) await bearer({ aud });
});

test('whatever is wrong with a token, it is refused in the same words', async () => {
  const [people] = await iora.sql('SELECT count(*)::int FROM users');
  const genuine = await oidc.oidcToken();
  const [head = '', body = '', signature = ''] = genuine.split('.');
  const { kid } = JSON.parse(Buffer.from(head, 'base64url').toString());
  const payload = JSON.parse(Buffer.from(body, 'base64url').toString());
  const altered = Buffer.from(JSON.stringify({ ...payload, sub: 'somebody' })).toString('base64url');
  const made = (claims: Record<string, unknown>, header = {}) => oidc.oidcToken({ claims, header });
  const tokens = {
    expired: await made({ exp: now() - 6 }),
    'without an end': await made({ exp: undefined }),
    'not valid yet': await made({ nbf: now() + 10 }),
    'issued in the future': await made({ iat: now() + 10 }),
    'without its beginning': await made({ iat: undefined }),
    'no audience': await made({ aud: undefined }),
    'foreign audience': await made({ aud: ['account'] }),
    'foreign issuer': await made({ iss: 'https://elsewhere.test' }),
    'the issuer and a slash': await made({ iss: `${oidc.issuer}/` }),
    'no person': await made({ sub: undefined }),
    'a person without end': await made({ sub: 'x'.repeat(300) }),
    'a person that cannot be kept': await made({ sub: 'a\u0000b' }),
    'an organization that is no text': await made({ org_id: ['a'] }),
    'a session that is no text': await made({ sid: 1 }),
    'altered claims': `${head}.${altered}.${signature}`,
    'no signature': `${head}.${body}.`,
    'alg none': new UnsecuredJWT(payload).encode(),
    'signed by another': await oidc.oidcToken({ key: attacker }),
    'HS256 under the public key': await oidc.oidcToken({
      key: Buffer.from(oidc.publicPem()),
      header: { alg: 'HS256', kid },
    }),
    'an algorithm of another kind of key': await made({}, { alg: 'ES256', kid }),
    'an algorithm the key is not for': await oidc.oidcToken({ key: attacker, header: { alg: 'PS256', kid } }),
    'which key, it does not say': await made({}, { kid: undefined }),
    'a critical header nobody knows': `${Buffer.from(JSON.stringify({ alg: 'RS256', kid, crit: ['x'], x: 1 })).toString('base64url')}.${body}.${signature}`,
    'a token of another kind': await made({}, { typ: 'logout+jwt' }),
    'a type that is no text': `${Buffer.from(JSON.stringify({ alg: 'RS256', kid, typ: 1 })).toString('base64url')}.${body}.${signature}`,
    'a session of Clerk': await oidc.clerkToken(),
    'an opaque token of Clerk': 'oat_0123456789abcdef',
    nonsense: 'a.b.c',
  };
  const expected = await refusal('iora_pk_live_unknown');
  assert.equal(expected[0], 'unauthenticated');
  for (const [what, token] of Object.entries(tokens)) assert.deepEqual(await refusal(token), expected, what);
  assert.deepEqual(await iora.sql('SELECT count(*)::int FROM users'), [people], 'nobody was made known');
});

test('clocks may differ by five seconds', async () => {
  await bearer({ exp: now() - 2 });
  await bearer({ iat: now() + 3, nbf: now() + 3 });
});

test('organization, role, email and session are what the claims say', async () => {
  const first = await bearer({ org_id: 'acme' });
  const second = await bearer({ org_id: 'acme' });
  assert.deepEqual([first.role, second.role], ['owner', 'member'], 'without a role the first to come is owner');
  assert.equal(first.orgId, second.orgId);
  assert.equal((await bearer({ org_id: 'acme', org_role: 'admin' })).role, 'admin');
  assert.equal((await bearer({ org_id: 'acme', org_role: 'org:viewer' })).role, 'viewer');
  assert.equal((await bearer({ org_id: 'acme', org_role: 'boss' })).role, 'viewer');
  assert.equal((await bearer({ org_id: 'fresh', org_role: ['owner'] })).role, 'viewer', 'a role is one text');
  assert.equal((await bearer({ org_id: null, org_role: 'owner' })).orgId, null);

  const verified = await bearer({ email: 'Dora@Example.com', email_verified: true });
  assert.equal((await iora.output('users.profile', verified))['email'], 'dora@example.com');
  const claimed = await bearer({ email: 'eve@example.com', email_verified: false });
  assert.equal((await iora.output('users.profile', claimed))['email'], null);

  await iora.sql(`INSERT INTO identity_deletions VALUES ($1, 'session', 'ended', now())`, [oidc.issuer]);
  assert.equal((await refusal(await oidc.oidcToken({ claims: { sid: 'ended' } })))[0], 'unauthenticated');
  await bearer({ sid: 'going on' });
});

test('the claims of organization and role may have other names', async () => {
  await using other = await own({
    settings: { OIDC_ORG_CLAIM: 'https://iora.test/org', OIDC_ROLE_CLAIM: 'https://iora.test/role' },
  });
  const claims = { 'https://iora.test/org': 'named', 'https://iora.test/role': 'admin', org_id: 'other' };
  const { role, orgId } = await other.application.bearer(await other.provider.oidcToken({ claims }));
  assert.equal(role, 'admin');
  assert.deepEqual(await iora.sql('SELECT external_id FROM organizations WHERE id = $1', [orgId]), [
    { external_id: 'named' },
  ]);
});

test('a token for the resource, of an access token’s type, or with our scopes is limited to them; others are sessions', async () => {
  const rights = async (claims: Record<string, unknown>, header = {}) => {
    const { permissions, scopes } = await bearer(claims, header);
    return scopes === null ? 'all' : [...permissions].toSorted().join(' ');
  };
  assert.equal(await rights({ scope: 'openid profile email' }), 'all');
  assert.equal(await rights({ scope: 'openid tools:read' }), 'tools:read');
  assert.equal(await rights({ scp: ['usage:read', 'tools:read'] }), 'tools:read usage:read');
  assert.equal(await rights({ scope: 'openid admin:write' }), '');
  assert.equal(await rights({ scope: 'openid profile' }, { typ: 'at+jwt' }), '');
  assert.equal(await rights({ scope: 'tools:read' }, { typ: 'at+jwt' }), 'tools:read');
  assert.equal(await rights({ aud: `${PUBLIC_URL}/mcp`, scope: 'openid' }), '');
  assert.equal(await rights({ aud: ['iora-api', `${PUBLIC_URL}/mcp`], scope: 'keys:read' }), 'keys:read');
  assert.equal(await rights({ org_id: 'scoped', org_role: 'viewer', scope: 'tools:read usage:read' }), 'usage:read');
  const limited = await bearer({ scope: 'tools:read' });
  const outcome = await iora.call('keys.create', limited, { name: 'x' });
  assert.ok(!outcome.ok && outcome.error.status === 403);
});

test('the issuer is asked once, at the start, and never by hundreds of calls', async () => {
  await using other = await own();
  const { application, provider } = other;
  await until(() => provider.requests().length === 2, 'keys are fetched at the start');
  for (let call = 0; call < 300; call += 1) {
    const alg = (['RS256', 'ES256', 'EdDSA'] as const)[call % 3];
    await application.bearer(await provider.oidcToken({ claims: { sub: `p${call % 5}` }, header: { alg } }));
  }
  assert.deepEqual(provider.requests(), [DISCOVERY, 'GET /jwks']);
});

test('new keys are found with one fetch, withdrawn ones refused, and a flood asks once', async () => {
  await using other = await own();
  const { application, provider } = other;
  const before = await provider.oidcToken();
  await application.bearer(before);
  provider.rotate({ withdraw: true });
  const tokens = await Promise.all(Array.from({ length: 20 }, () => provider.oidcToken()));
  await Promise.all(tokens.map((token) => application.bearer(token)));
  assert.equal((await refusal(before, application))[0], 'unauthenticated');
  for (let call = 0; call < 100; call += 1) {
    const token = await provider.oidcToken({ key: attacker, header: { kid: `made up ${call}` } });
    assert.equal((await refusal(token, application))[0], 'unauthenticated');
  }
  assert.deepEqual(provider.requests(), [DISCOVERY, 'GET /jwks', 'GET /jwks']);
});

test('an issuer that is away is not noticed while its keys are kept, and is 503 where there are none', async () => {
  await using kept = await own();
  await kept.application.bearer(await kept.provider.oidcToken());
  kept.provider.setDown(true);
  for (let call = 0; call < 10; call += 1) await kept.application.bearer(await kept.provider.oidcToken());
  kept.provider.rotate();
  assert.equal(
    (await refusal(await kept.provider.oidcToken(), kept.application))[0],
    'unavailable',
    'it may be a new key',
  );

  await using away = await own({ down: true });
  assert.equal((await refusal(await away.provider.oidcToken(), away.application))[0], 'unavailable');
  away.provider.setDown(false);
  await until(
    () =>
      away.provider
        .oidcToken()
        .then((token) => away.application.bearer(token))
        .then(
          () => true,
          () => false,
        ),
    'it is believed when it is back',
  );
});

test('a discovery document that is another issuer’s, or leads to an unsafe place, is not followed', async () => {
  for (const discovery of [
    { issuer: 'https://elsewhere.test' },
    { jwks_uri: 'http://elsewhere.test/jwks' },
    { jwks_uri: `${oidc.url}/jwks?with=a-query` },
    { jwks_uri: 'file:///etc/passwd' },
    { jwks_uri: undefined },
  ]) {
    await using other = await own({ discovery });
    const { application, provider } = other;
    assert.equal((await refusal(await provider.oidcToken(), application))[0], 'unavailable');
    assert.ok([...provider.requests(), ...oidc.requests()].every((request) => !request.includes('a-query')));
    assert.ok(provider.requests().every((request) => request === DISCOVERY));
    assert.ok(application.log.named('the signing keys of an identity provider could not be fetched').length > 0);
  }
});

test('beside Clerk each provider judges its own tokens', async () => {
  await using other = await own({ settings: oidc.settings.clerkPem });
  const { application, provider } = other;
  // Clerk's access tokens are taken only beside its secret key, so it is not named as where to get one.
  assert.deepEqual(application.app.accessTokenIssuers, [provider.issuer]);
  const ofOidc = await application.bearer(await provider.oidcToken({ claims: { sub: 'user_same' } }));
  const ofClerk = await application.bearer(await oidc.clerkToken({ claims: { sub: 'user_same' } }));
  assert.notEqual(ofOidc.userId, ofClerk.userId, 'a person is the issuer and the subject');
  const posing = await provider.oidcToken({ claims: { iss: oidc.clerkIssuer, azp: PUBLIC_URL } });
  assert.equal((await refusal(posing, application))[0], 'unauthenticated');
});
