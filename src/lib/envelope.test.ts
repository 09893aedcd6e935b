import assert from 'node:assert/strict';
import { createDecipheriv, createHmac, hkdfSync, randomBytes } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { blindIndex, EnvelopeError, type EnvelopeKey, open, type SealContext, seal } from './envelope.ts';

const KEY: EnvelopeKey = { version: 1, secret: randomBytes(32) };
const NEXT: EnvelopeKey = { version: 2, secret: randomBytes(32) };
const HERE: SealContext = { table: 'users', column: 'email', row: '42' };
const EMAIL = 'ada@example.org';

function refusal(sealed: Uint8Array, keys: readonly EnvelopeKey[], context: SealContext): EnvelopeError {
  try {
    open(sealed, keys, context);
  } catch (error) {
    assert.ok(error instanceof EnvelopeError);
    assert.doesNotMatch(`${error.message} ${JSON.stringify(error)} ${error.stack}`, /ada@example/);
    return error;
  }
  return assert.fail('the value opened');
}

test('any text opens where it was sealed, and twice sealed is two values', (t) => {
  const numRuns = 1_000;
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme', maxLength: 200 }), (text) => {
      const sealed = seal(text, KEY, HERE);
      assert.equal(open(sealed, [KEY], HERE), text);
      assert.equal(sealed.length, 1 + 4 + 12 + Buffer.byteLength(text) + 16);
      assert.notDeepEqual(seal(text, KEY, HERE), sealed);
    }),
    { numRuns },
  );
  t.diagnostic(`${numRuns} texts`);
});

test('the layout is the written one: another program opens it with nothing but AES-GCM and HKDF', () => {
  const sealed = seal(EMAIL, { ...KEY, version: 0x01020304 }, HERE);
  assert.equal(sealed.subarray(0, 5).toString('hex'), '0101020304');
  const secret = Buffer.from(hkdfSync('sha256', KEY.secret, '', 'iora seal v1', 32));
  const decipher = createDecipheriv('aes-256-gcm', secret, sealed.subarray(5, 17));
  decipher.setAAD(
    Buffer.from('0101020304' + '00000005' + '7573657273' + '00000005' + '656d61696c' + '00000002' + '3432', 'hex'),
  );
  decipher.setAuthTag(sealed.subarray(-16));
  assert.equal(decipher.update(sealed.subarray(17, -16), undefined, 'utf8') + decipher.final('utf8'), EMAIL);
});

test('a value in another row, column or table does not open, however the names are cut', () => {
  const sealed = seal(EMAIL, KEY, HERE);
  const elsewhere: SealContext[] = [
    { ...HERE, row: '43' },
    { ...HERE, column: 'name' },
    { ...HERE, table: 'organizations' },
    { table: 'user', column: 'semail', row: '42' },
    { table: 'users', column: 'email4', row: '2' },
    { table: 'users', column: '', row: 'email42' },
  ];
  for (const context of elsewhere) assert.equal(refusal(sealed, [KEY], context).reason, 'not_authentic');
});

test('every single changed bit, and every cut, is noticed', (t) => {
  const sealed = seal(EMAIL, KEY, HERE);
  const reasons = new Map<string, number>();
  for (let bit = 0; bit < sealed.length * 8; bit++) {
    const altered = Buffer.from(sealed);
    altered[bit >> 3] = (altered[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    const { reason } = refusal(altered, [KEY], HERE);
    reasons.set(reason, (reasons.get(reason) ?? 0) + 1);
  }
  assert.deepEqual(Object.fromEntries(reasons), {
    malformed: 8,
    unknown_key: 32,
    not_authentic: (sealed.length - 5) * 8,
  });
  for (let length = 0; length < sealed.length; length++) refusal(sealed.subarray(0, length), [KEY], HERE);
  t.diagnostic(`${sealed.length * 8} changes of one bit refused`);
});

test('the version cannot be changed to another key that is configured', () => {
  const sealed = seal(EMAIL, KEY, HERE);
  sealed.writeUInt32BE(NEXT.version, 1);
  assert.equal(refusal(sealed, [KEY, NEXT], HERE).reason, 'not_authentic');
  assert.equal(refusal(sealed, [KEY, { ...KEY, version: NEXT.version }], HERE).reason, 'not_authentic');
});

test('an old key opens what it sealed until it is taken away; then the refusal names its version', () => {
  const old = seal(EMAIL, KEY, HERE);
  assert.equal(open(old, [NEXT, KEY], HERE), EMAIL);
  assert.equal(open(seal(EMAIL, NEXT, HERE), [NEXT, KEY], HERE), EMAIL);
  const refused = refusal(old, [NEXT], HERE);
  assert.equal(refused.reason, 'unknown_key');
  assert.match(refused.message, /data key 1\b/);
});

test('random bytes never open and never break anything', (t) => {
  const numRuns = 2_000;
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 80 }), (bytes) => {
      refusal(bytes, [KEY], HERE);
      refusal(Uint8Array.from([1, 0, 0, 0, 1, ...bytes]), [KEY], HERE);
    }),
    { numRuns },
  );
  t.diagnostic(`${numRuns} cases`);
});

test('the blind index finds the same value under the same key, by a key of its own', () => {
  const index = blindIndex(EMAIL, KEY);
  assert.equal(index.length, 32);
  assert.deepEqual(blindIndex(EMAIL, KEY), index);
  assert.notDeepEqual(blindIndex('eve@example.org', KEY), index);
  assert.notDeepEqual(blindIndex(EMAIL, NEXT), index);
  for (const purpose of ['iora seal v1', '']) {
    const other = Buffer.from(hkdfSync('sha256', KEY.secret, '', purpose, 32));
    assert.notDeepEqual(createHmac('sha256', other).update(EMAIL).digest(), index);
  }
  assert.notDeepEqual(createHmac('sha256', KEY.secret).update(EMAIL).digest(), index);
});

test('a secret of another length is refused before it is used', () => {
  for (const length of [0, 16, 31, 33]) {
    const short: EnvelopeKey = { version: 1, secret: new Uint8Array(length) };
    assert.throws(() => seal(EMAIL, short, HERE), RangeError);
    assert.throws(() => blindIndex(EMAIL, short), RangeError);
  }
});
