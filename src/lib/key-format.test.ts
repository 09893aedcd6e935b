import assert from 'node:assert/strict';
import { test } from 'node:test';
import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import { generateKey, keyPattern, parseKey } from './key-format.ts';

const ALPHABET = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
const KEYS = 2_000;

function base62Value(text: string): bigint {
  return [...text].reduce((sum, character) => sum * 62n + BigInt(ALPHABET.indexOf(character)), 0n);
}

test('a generated key parses, and its last six characters are the CRC-32 of the rest', () => {
  for (const environment of ['live', 'test'] as const) {
    const key = generateKey(environment);
    assert.match(key, new RegExp(`^iora_pk_${environment}_[0-9A-Za-z]{49}$`));
    assert.deepEqual(parseKey(key), { environment, prefix: key.slice(0, 17) });
    assert.equal(base62Value(key.slice(-6)), BigInt(crc32(key.slice(0, -6))));
  }
});

test('a key made by hand from the published rule is read the same way', () => {
  const body = `iora_pk_test_${'0'.repeat(43)}`;
  let rest = crc32(body);
  let sum = '';
  while (sum.length < 6) {
    sum = ALPHABET.charAt(rest % 62) + sum;
    rest = Math.trunc(rest / 62);
  }
  assert.deepEqual(parseKey(body + sum), { environment: 'test', prefix: 'iora_pk_test_0000' });
});

test('keys hold 256 bits: none repeats, none is larger, every bit is set about half the time', () => {
  const seen = new Set<string>();
  const ones = new Array<number>(256).fill(0);
  for (let i = 0; i < KEYS; i++) {
    const key = generateKey('live');
    seen.add(key);
    const value = base62Value(key.slice(13, 56));
    assert.ok(value < 2n ** 256n);
    const bits = value.toString(2).padStart(256, '0');
    for (let bit = 0; bit < 256; bit++) ones[bit] = (ones[bit] ?? 0) + Number(bits.charAt(bit));
  }
  assert.equal(seen.size, KEYS);
  // Seven standard deviations of a fair coin: one chance in about 10^9 over all 256 bits.
  const tolerance = 7 * Math.sqrt(KEYS / 4);
  for (const count of ones)
    assert.ok(Math.abs(count - KEYS / 2) < tolerance, `a bit was set ${count} of ${KEYS} times`);
});

test('any single changed, lost or added character is refused', (t) => {
  const key = generateKey('live');
  let tried = 0;
  for (let at = 0; at < key.length; at++) {
    for (const character of `${ALPHABET}_-. `) {
      if (character === key[at]) continue;
      assert.equal(parseKey(key.slice(0, at) + character + key.slice(at + 1)), null);
      tried++;
    }
    assert.equal(parseKey(key.slice(0, at) + key.slice(at + 1)), null);
    assert.equal(parseKey(`${key.slice(0, at)}A${key.slice(at)}`), null);
  }
  t.diagnostic(`${tried} single-character changes refused`);
});

test('hostile input is answered with null', (t) => {
  const key = generateKey('live');
  const cases = [
    '',
    ' ',
    `${key}\n`,
    ` ${key}`,
    key.replace('live', 'LIVE'),
    key.replace('live', 'prod'),
    key.repeat(1_000),
  ];
  for (const text of cases) assert.equal(parseKey(text), null);
  const numRuns = 1_000;
  const looksRight = fc
    .array(fc.constantFrom(...ALPHABET), { minLength: 49, maxLength: 49 })
    .map((characters) => `iora_pk_live_${characters.join('')}`);
  fc.assert(
    fc.property(fc.oneof(looksRight, fc.string({ maxLength: 80 })), (text) => {
      assert.equal(parseKey(text), null);
    }),
    { numRuns },
  );
  t.diagnostic(`${numRuns} random strings`);
});

test('the published expression finds keys in text, also behind an escaped line feed', () => {
  const keys = [generateKey('live'), generateKey('test')];
  const text = `{"env":"A=1\\n${keys[0]}\\nB=2"} export KEY=${keys[1]};`;
  assert.deepEqual(text.match(new RegExp(keyPattern, 'g')), keys);
});
