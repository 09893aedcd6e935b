// Values that mean something to the operations, as callers in good faith would send them, for the fields whose schema cannot
// tell.
import fc from 'fast-check';
import { assets, currencies } from '../../src/features/market/symbols.ts';
import { anyCharacters } from './hostile-values.ts';
import { reference } from './references.ts';

const someCase = (text: string) =>
  fc.constantFrom(text, text, text.toLowerCase(), `${text.slice(0, 1)}${text.slice(1).toLowerCase()}`);

const withoutControls = (text: string) => `k${text.replace(/\p{Cc}/gu, '')}`;

/** What people call their keys, and what a command line, SQL or a terminal could take for something else. */
const names = [
  'backend',
  "o'hara",
  'ключ',
  '键',
  '🔑',
  ' padded ',
  'null',
  '-dash',
  '--json',
  'a,b',
  'x=y',
  '"',
  '\u2028',
];

/** Values that mean something, by the name of their field: what the schema alone cannot tell. */
export const meaningful: Readonly<Record<string, fc.Arbitrary<unknown>>> = {
  symbol: fc.oneof(
    { weight: 12, arbitrary: fc.constantFrom(...assets.map(({ symbol }) => symbol)).chain(someCase) },
    { weight: 1, arbitrary: fc.stringMatching(/^[A-Za-z0-9:_.-]{1,32}$/) },
  ),
  currency: fc.oneof(
    { weight: 12, arbitrary: fc.constantFrom(...currencies).chain(someCase) },
    { weight: 1, arbitrary: fc.stringMatching(/^[A-Za-z]{3}$/) },
  ),
  query: fc.oneof(
    fc.constantFrom('bit', 'BTC', 'a', 'coin', ' ', '%', '_', 'ß', 'ﬁ'),
    fc.string({ unit: 'grapheme', minLength: 1, maxLength: 10 }),
    anyCharacters,
  ),
  id: fc.oneof(
    { weight: 8, arbitrary: reference(['liveKey'], ['as it is']) },
    { weight: 1, arbitrary: reference(['liveKey'], ['upper case']) },
    { weight: 3, arbitrary: reference(['revokedKey', 'expiredKey', 'colleagueKey', 'foreignKey'], ['as it is']) },
    { weight: 1, arbitrary: fc.uuid() },
    { weight: 1, arbitrary: reference(['liveKey'], ['cut short', 'continued', 'one character changed']) },
  ),
  createdBy: fc.oneof(
    { weight: 6, arbitrary: reference(['person'], ['as it is']) },
    { weight: 1, arbitrary: fc.stringMatching(/^user_[0-9a-f]{32}$/) },
    { weight: 1, arbitrary: reference(['person'], ['cut short', 'continued', 'one character changed']) },
  ),
  // In canonical form, so that the answer can be held against it.
  allowedCidrs: fc.oneof(
    fc.integer({ min: 0, max: 255 }).map((byte) => `198.51.${byte}.0/24`),
    fc.integer({ min: 1, max: 0xffff }).map((group) => `2001:db8:${group.toString(16)}::/48`),
    fc.constantFrom('0.0.0.0/0', '::/0', '192.0.2.7/32', '::1/128'),
  ),
  cursor: fc.oneof(
    { weight: 6, arbitrary: reference(['cursor'], ['as it is']) },
    { weight: 1, arbitrary: reference(['foreignCursor'], ['as it is']) },
    { weight: 2, arbitrary: reference(['cursor'], ['cut short', 'continued', 'one character changed']) },
    { weight: 1, arbitrary: fc.base64String({ minLength: 1, maxLength: 60 }) },
  ),
  tier: fc.oneof(
    { weight: 6, arbitrary: fc.constantFrom('free', 'pro', 'enterprise') },
    { weight: 1, arbitrary: fc.constantFrom('Free', 'none', "pro'--") },
  ),
  name: fc.oneof(
    { weight: 4, arbitrary: fc.constantFrom(...names) },
    { weight: 4, arbitrary: fc.string({ unit: 'grapheme', minLength: 1, maxLength: 30 }).map(withoutControls) },
    { weight: 1, arbitrary: anyCharacters.map(withoutControls) },
  ),
};

/** Moments ahead: of the usual kind, at the edges of the calendar, in every zone. */
export const futureTimes: fc.Arbitrary<string> = fc.oneof(
  fc
    .date({ min: new Date('2099-01-01'), max: new Date('9990-01-01'), noInvalidDate: true })
    .map((moment) => moment.toISOString()),
  fc.constantFrom(
    '2099-12-31T23:59:59Z',
    '2096-02-29T00:00:00.000Z',
    '2099-06-30T12:00:00+14:00',
    '2099-06-30T12:00:00.123456789-23:59',
    '9999-12-31T23:59:59.999Z',
    // Well formed, and past the last year that can be written.
    '9999-12-31T23:59:59-23:59',
  ),
);
