// What no schema asks for: values, names and damage that have broken parsers, databases and terminals elsewhere.
import fc from 'fast-check';

/** Above what any field takes, below what a body may have. */
const LONG_LENGTH = 5_000;
/** Above what a body may have. */
const ENORMOUS_LENGTH = 70_000;
/** Deeper than any body may be nested, and deeper than what walks over a value by recursion likes. */
const DEEP = { levels: 40, abyss: 500 };

const texts = [
  '',
  ' ',
  '\t',
  '\n',
  '\u001b[2J',
  '\u007f',
  '\u202egnp.exe',
  '\ufeff',
  '\ufffd',
  '𝕏',
  'e\u0301\u0301\u0301',
  'ß',
  'ŉ',
  'İ',
  '👩‍👩‍👧‍👦',
  'NaN',
  'Infinity',
  '-Infinity',
  '-0',
  '0',
  '1',
  '007',
  '0x10',
  '1e2',
  '1e999',
  ' 5 ',
  '+5',
  '5.0',
  '10,5',
  'null',
  'undefined',
  'true',
  'false',
  '[]',
  '{}',
  '[object Object]',
  "' OR '1'='1",
  '"; DROP TABLE users; --',
  '$1',
  '%',
  '%00',
  '%zz',
  '%2e%2e%2f',
  '../../etc/passwd',
  '..',
  '.',
  '/',
  'current',
  'a/b',
  'a?b=c&d',
  '#',
  '\r\nx-injected: yes',
  '<script>alert(1)</script>',
  // biome-ignore lint/suspicious/noTemplateCurlyInString: text that something might take for a template
  '${7*7}',
  '--help',
  '-x',
  '@file',
  '2020-01-01T00:00:00Z',
  '2099-02-30T00:00:00Z',
  '9999-12-31T23:59:59-23:59',
  '+010000-01-01T00:00:00Z',
  '0000-01-01T00:00:00Z',
  '2099-01-01',
  '2099-01-01T00:00:00',
  '00000000-0000-0000-0000-000000000000',
  'ffffffff-ffff-ffff-ffff-ffffffffffff',
  'FFFFFFFF-FFFF-4FFF-8FFF-FFFFFFFFFFFF',
  '{0198f2a0-7c11-7b3a-9d4e-2f6a1c0b5e77}',
  '0198f2a07c117b3a9d4e2f6a1c0b5e77',
  'WyIiXQ',
  'WzFd',
  'W10',
  'bnVsbA',
  `a${' '.repeat(LONG_LENGTH)}b`,
  'a'.repeat(LONG_LENGTH),
  `${'a'.repeat(LONG_LENGTH)}\n`,
  '🔑'.repeat(LONG_LENGTH / 2),
];

const numbers = [0, -0, 1, -1, 0.5, 1e-7, 1e21, 2 ** 31, 2 ** 32, 2 ** 53, -(2 ** 53), Number.MAX_VALUE, 5e-324];

/** Any UTF-16 there is, half surrogate pairs and control characters among it. */
export const anyCharacters: fc.Arbitrary<string> = fc
  .array(fc.nat(0xffff), { minLength: 1, maxLength: 50 })
  .map((codes) => String.fromCharCode(...codes));

/** Any text, that first which is known for trouble. */
export const hostileTexts: fc.Arbitrary<string> = fc.oneof(
  { weight: 3, arbitrary: fc.constantFrom(...texts) },
  { weight: 1, arbitrary: anyCharacters },
  { weight: 1, arbitrary: fc.constantFrom('\ud800', '\udfff\ud800', 'a\udc00', '\0', 'a\0b') },
);

/** Any JSON value, those first that are known for trouble. */
export const hostileValues: fc.Arbitrary<unknown> = fc.oneof(
  { weight: 3, arbitrary: fc.constantFrom<unknown>(null, true, false, [], {}, [null], [[]], ['a', 'a']) },
  { weight: 8, arbitrary: hostileTexts },
  { weight: 3, arbitrary: fc.constantFrom<unknown>(...numbers) },
  { weight: 2, arbitrary: fc.jsonValue() },
  {
    weight: 1,
    arbitrary: fc.constantFrom<unknown>(
      { toString: 1, valueOf: 2, toJSON: 3 },
      { length: -1 },
      JSON.parse('{"then":"x"}'),
      { $gt: '' },
      JSON.parse('{"__proto__":{"admin":true}}'),
      { constructor: { prototype: { admin: true } } },
      nested(DEEP.levels),
      Array.from({ length: 200 }, () => ({})),
    ),
  },
);

/** Values too large or too deep for every transport; rare, since each of them takes its time. */
export const oversizedValues: fc.Arbitrary<unknown> = fc.constantFrom<unknown>(
  'a'.repeat(ENORMOUS_LENGTH),
  nested(DEEP.abyss),
  Array.from({ length: ENORMOUS_LENGTH }, () => 0),
);

/** Names that fields of ours do not have. */
export const oddNames = [
  '__proto__',
  'constructor',
  'prototype',
  'toString',
  'hasOwnProperty',
  '',
  ' ',
  '0',
  'Symbol',
  'symbol ',
  'NAME',
  'requests_per_minute',
  'limit',
  'extra',
  'ключ',
  '\0',
  '\ud800',
  'a.b',
  'a[0]',
  'user',
  'json',
  'help',
  'no-name',
  'x'.repeat(300),
];

/** Names that nobody thought of. */
export const hostileNames = fc.string({ unit: 'grapheme-ascii', maxLength: 12 });

/** Changes to a value that leave it nearly what it was. */
export const damaged: fc.Arbitrary<(value: unknown) => unknown> = fc.constantFrom(
  (value: unknown) => [value],
  (value: unknown) => [value, value],
  (value: unknown) => ({ value }),
  (value: unknown) => (typeof value === 'string' ? ` ${value}` : JSON.stringify(value)),
  (value: unknown) => (typeof value === 'string' ? `${value}\n` : typeof value === 'number' ? value + 0.5 : 0.5),
  (value: unknown) => (typeof value === 'string' ? value.repeat(2) : value),
  (value: unknown) => (typeof value === 'string' ? value.slice(1) : JSON.stringify([value])),
  (value: unknown) => (typeof value === 'string' ? `${value}\u0000` : null),
  (value: unknown) => (typeof value === 'string' ? value.split('') : [[value]]),
  (value: unknown) => (typeof value === 'string' ? value.toUpperCase().replace('S', 'ſ') : false),
  (value: unknown) => (Array.isArray(value) ? [...value, ...value] : ''),
  (value: unknown) => (Array.isArray(value) ? value.map((item) => JSON.stringify(item)).join(',') : 0),
);

function nested(levels: number): unknown {
  let value: unknown = 'bottom';
  for (let level = 0; level < levels; level += 1) value = level % 2 === 0 ? [value] : { a: value };
  return value;
}
