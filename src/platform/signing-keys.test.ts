import assert from 'node:assert/strict';
import { createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { test } from 'node:test';
import { captureLog } from '../../test/support/captured-log.ts';
import {
  createSigningKeys,
  SIGNING_KEYS_FRESH_MS,
  SIGNING_KEYS_KEPT_MS,
  SigningKeysUnavailableError,
  UNKNOWN_KEY_PAUSE_MS,
} from './signing-keys.ts';

const rsa = generateKeyPairSync('rsa', { modulusLength: 2_048 }).publicKey;
const other = generateKeyPairSync('rsa', { modulusLength: 2_048 }).publicKey;
const jwk = (key: KeyObject, kid?: string, change: object = {}) => ({
  ...key.export({ format: 'jwk' }),
  kid,
  ...change,
});

/** A store on a clock of the test's own, asking an issuer that the test answers for. */
function setup(...published: unknown[]) {
  const issuer = { keys: published, away: false, asked: 0, hold: undefined as Promise<void> | undefined };
  const clock = { ms: 1_000 };
  const log = captureLog();
  const keys = createSigningKeys({
    issuer: 'https://issuer.test',
    async fetchKeys() {
      issuer.asked += 1;
      await issuer.hold;
      if (issuer.away) throw new Error('away');
      return { keys: issuer.keys };
    },
    log,
    monotonicMs: () => clock.ms,
  });
  return { issuer, clock, keys, log };
}

/** Lets work that waits for nothing but promises come to its end. */
const settled = () => new Promise((resolve) => setImmediate(resolve));

test('keys are fetched once, also when many ask at the same time', async () => {
  const { issuer, keys } = setup(jwk(rsa, 'a'));
  keys.prime();
  const found = await Promise.all(Array.from({ length: 50 }, () => keys.find('a')));
  assert.ok(found.every((key) => key?.key.equals(rsa)));
  assert.ok(createPublicKey(found[0]?.pem ?? '').equals(rsa));
  for (let call = 0; call < 500; call += 1) await keys.find('a');
  assert.equal(issuer.asked, 1);
});

test('keys grow old beside the calls: the old ones answer while new ones are fetched', async () => {
  const { issuer, clock, keys } = setup(jwk(rsa, 'a'));
  await keys.find('a');
  clock.ms += SIGNING_KEYS_FRESH_MS - 1;
  await keys.find('a');
  assert.equal(issuer.asked, 1);
  clock.ms += 1;
  const held = Promise.withResolvers<void>();
  issuer.hold = held.promise;
  issuer.keys = [jwk(other, 'b')];
  assert.ok(await keys.find('a'), 'nobody waits');
  assert.ok(await keys.find('a'));
  assert.equal(issuer.asked, 2);
  held.resolve();
  await settled();
  assert.equal(await keys.find('a'), null, 'withdrawn');
  assert.ok(await keys.find('b'));
});

test('after an idle time the first call waits, so that a key withdrawn meanwhile is not believed', async () => {
  const { issuer, clock, keys } = setup(jwk(rsa, 'a'));
  await keys.find('a');
  clock.ms += 3 * SIGNING_KEYS_FRESH_MS;
  issuer.keys = [jwk(other, 'b')];
  assert.equal(await keys.find('a'), null);
});

test('a flood of made-up names makes one fetch in each pause, and a new key is found with it', async () => {
  const { issuer, clock, keys } = setup(jwk(rsa, 'a'));
  await keys.find('a');
  for (let call = 0; call < 300; call += 1) assert.equal(await keys.find(`made up ${call}`), null);
  await Promise.all(Array.from({ length: 300 }, (_, call) => keys.find(`more ${call}`)));
  assert.equal(issuer.asked, 2);
  issuer.keys = [jwk(rsa, 'a'), jwk(other, 'b')];
  assert.equal(await keys.find('b'), null, 'within the pause');
  clock.ms += UNKNOWN_KEY_PAUSE_MS;
  assert.ok(await keys.find('b'));
  assert.equal(issuer.asked, 3);
});

test('the first unknown name after the start is asked for at once', async () => {
  const { issuer, keys } = setup(jwk(rsa, 'a'));
  await keys.find('a');
  issuer.keys = [jwk(rsa, 'a'), jwk(other, 'b')];
  assert.ok(await keys.find('b'));
  assert.equal(issuer.asked, 2);
});

test('an issuer that is away is not noticed while its keys are kept, for a day', async () => {
  const { issuer, clock, keys, log } = setup(jwk(rsa, 'a'));
  await keys.find('a');
  issuer.away = true;
  for (let minute = 0; minute < 24 * 60 - 1; minute += 1) {
    clock.ms += 60_000;
    assert.ok(await keys.find('a'));
    await settled();
  }
  assert.ok(issuer.asked > 100, 'it is asked again and again');
  await assert.rejects(keys.find('unknown'), SigningKeysUnavailableError, 'who knows what the issuer has by now');
  clock.ms = 1_000 + SIGNING_KEYS_KEPT_MS;
  await assert.rejects(keys.find('a'), SigningKeysUnavailableError);
  assert.ok(log.named('the signing keys of an identity provider could not be fetched').length > 100);
  issuer.away = false;
  clock.ms += UNKNOWN_KEY_PAUSE_MS;
  assert.ok(await keys.find('a'));
});

test('without any keys an issuer that is away is asked every other second, and believed when it is back', async () => {
  const { issuer, clock, keys } = setup(jwk(rsa, 'a'));
  issuer.away = true;
  for (let call = 0; call < 50; call += 1) await assert.rejects(keys.find('a'), SigningKeysUnavailableError);
  assert.equal(issuer.asked, 1);
  issuer.away = false;
  clock.ms += 2_000;
  assert.ok(await keys.find('a'));
});

test('an answer without usable keys changes nothing', async () => {
  const { issuer, clock, keys } = setup(jwk(rsa, 'a'));
  await keys.find('a');
  for (const answer of [[], ['no key'], [{ kty: 'oct', k: 'AAAA', kid: 'a' }]]) {
    issuer.keys = answer;
    clock.ms += SIGNING_KEYS_FRESH_MS;
    assert.ok(await keys.find('a'));
    await settled();
    assert.ok(await keys.find('a'));
  }
  assert.equal(issuer.asked, 4);
});

test('a fetch that never ends is given up', { timeout: 20_000 }, async (context) => {
  context.mock.timers.enable({ apis: ['setTimeout'] });
  const { issuer, keys } = setup(jwk(rsa, 'a'));
  issuer.hold = new Promise(() => undefined);
  const refused = assert.rejects(keys.find('a'), SigningKeysUnavailableError);
  await settled();
  context.mock.timers.tick(5_000);
  await refused;
});

test('each key verifies by the algorithms of its kind only, and what is no signing key is passed over', async () => {
  const pairOf = (namedCurve: string) => generateKeyPairSync('ec', { namedCurve }).publicKey;
  const ed25519 = generateKeyPairSync('ed25519').publicKey;
  const { keys } = setup(
    jwk(rsa, 'rsa'),
    jwk(rsa, 'rs256', { alg: 'RS256', use: 'sig', key_ops: ['verify'] }),
    jwk(pairOf('P-256'), 'p256'),
    jwk(pairOf('P-384'), 'p384'),
    jwk(pairOf('P-521'), 'p521'),
    jwk(ed25519, 'ed25519'),
    jwk(generateKeyPairSync('rsa', { modulusLength: 1_024 }).publicKey, 'short'),
    jwk(rsa, 'encrypts', { use: 'enc' }),
    jwk(rsa, 'oaep', { alg: 'RSA-OAEP' }),
    jwk(rsa, 'hmac', { alg: 'HS256' }),
    jwk(rsa, 'signs', { key_ops: ['sign'] }),
    jwk(generateKeyPairSync('x25519').publicKey, 'x25519'),
    { kty: 'RSA', kid: 'broken', n: '!', e: 'AQAB' },
    { kty: 'EC', kid: 'off curve', crv: 'P-256', x: 'AAAA', y: 'AAAA' },
    null,
  );
  const of = async (kid: string) => (await keys.find(kid))?.algorithms;
  assert.deepEqual(await of('rsa'), ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512']);
  assert.deepEqual(await of('rs256'), ['RS256']);
  assert.deepEqual([await of('p256'), await of('p384'), await of('p521')], [['ES256'], ['ES384'], ['ES512']]);
  assert.deepEqual(await of('ed25519'), ['EdDSA', 'Ed25519']);
  for (const kid of ['short', 'encrypts', 'oaep', 'hmac', 'signs', 'x25519', 'broken', 'off curve'])
    assert.equal(await of(kid), undefined, kid);
});

test('a token that names no key is verified by the only one there is', async () => {
  const alone = setup(jwk(rsa));
  assert.ok(await alone.keys.find(undefined));
  assert.equal(await alone.keys.find('a'), null);
  const several = setup(jwk(rsa, 'a'), jwk(other, 'b'));
  assert.equal(await several.keys.find(undefined), null);
  assert.equal(several.issuer.asked, 1);
});
