import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type CursorField, decodeCursor, encodeCursor } from './cursor.ts';

const ID = '0199a0b1-7c3d-7e4f-8a5b-0123456789ab';
const cursorOf = (json: string) => Buffer.from(json).toString('base64url');
const anyField = fc.constantFrom<CursorField>('string', 'number', 'integer', 'uuid', 'time');

test('what was encoded comes back, with its types', () => {
  const cursor = encodeCursor(['2026-02-28T23:59:59.123456Z', ID, 7, 0.5, 'Ω "quoted"']);
  assert.match(cursor, /^[\w-]+$/);
  const values = decodeCursor(cursor, ['time', 'uuid', 'integer', 'number', 'string']);
  assert.ok(values);
  const [time, id, count, ratio, name]: [string, string, number, number, string] = values;
  assert.deepEqual([time, id, count, ratio, name], ['2026-02-28T23:59:59.123456Z', ID, 7, 0.5, 'Ω "quoted"']);
  assert.deepEqual(decodeCursor(encodeCursor([]), []), []);
});

test('any strings and numbers survive the journey', (t) => {
  const numRuns = 2_000;
  const text = fc
    .string({ unit: 'grapheme', maxLength: 20 })
    .filter((value) => value.isWellFormed() && !value.includes('\0'));
  const number = fc.double({ noNaN: true, noDefaultInfinity: true }).map((value) => value + 0);
  fc.assert(
    fc.property(fc.array(fc.oneof(text, number), { maxLength: 4 }), (values) => {
      const shape = values.map((value) => (typeof value === 'number' ? 'number' : 'string'));
      assert.deepEqual(decodeCursor(encodeCursor(values), shape), values);
    }),
    { numRuns },
  );
  t.diagnostic(`${numRuns} cases`);
});

test('another shape, other types and values that a query would choke on are refused', () => {
  const shape = ['time', 'uuid'] as const;
  const good = '2026-02-28T00:00:00Z';
  assert.ok(decodeCursor(encodeCursor([good, ID]), shape));
  const bad: (string | number)[][] = [
    [],
    [good],
    [good, ID, 1],
    [ID, good],
    [good, 1],
    [1, ID],
    [good, ID.toUpperCase()],
    [good, ''],
  ];
  for (const values of bad) assert.equal(decodeCursor(encodeCursor(values), shape), null);
  const times = [
    '2026-02-30T00:00:00Z',
    '2026-13-01T00:00:00Z',
    '2026-01-01T24:00:00Z',
    '2026-01-01T00:00:60Z',
    '0000-01-01T00:00:00Z',
  ];
  for (const time of [
    ...times,
    '2026-01-01',
    '2026-01-01T00:00:00+01:00',
    '2026-01-01T00:00:00.1234567Z',
    '+012026-01-01T00:00:00Z',
  ]) {
    assert.equal(decodeCursor(encodeCursor([time]), ['time']), null, time);
  }
  for (const number of [0.5, 2 ** 53]) assert.equal(decodeCursor(encodeCursor([number]), ['integer']), null);
  for (const json of ['["\\u0000"]', '["\\ud800"]']) assert.equal(decodeCursor(cursorOf(json), ['string']), null);
});

test('one position has one spelling', () => {
  const cursor = encodeCursor(['ab', 1]);
  assert.ok(decodeCursor(cursor, ['string', 'number']));
  const respelt = [`${cursor}=`, `${cursor}\n`, ` ${cursor}`, `${cursor}!`];
  for (const json of ['["ab", 1]', '["\\u0061b",1]', '["ab",1.0]', '["ab",1e0]', '["ab",-0]'])
    respelt.push(cursorOf(json));
  for (const text of respelt) assert.equal(decodeCursor(text, ['string', 'number']), null, text);
  assert.equal(
    decodeCursor(Buffer.from([...Buffer.from('["'), 0xff, ...Buffer.from('"]')]).toString('base64url'), ['string']),
    null,
  );
});

test('hostile input is answered with null and never with an exception', (t) => {
  const shape: CursorField[] = ['string', 'integer'];
  const huge = Buffer.from(JSON.stringify(['x'.repeat(1_000), 1])).toString('base64url');
  const deep = cursorOf('['.repeat(300));
  const things = [
    undefined,
    null,
    1,
    [],
    ['WyJhIiwxXQ'],
    {},
    '',
    huge,
    deep,
    ...['{}', '1', 'null', '"a"', '{"0":"a","1":1,"length":2}'].map(cursorOf),
  ];
  for (const thing of things) assert.equal(decodeCursor(thing, shape), null);
  const numRuns = 3_000;
  const hostile = fc.oneof(fc.anything(), fc.base64String(), fc.json({ maxDepth: 2 }).map(cursorOf), fc.string());
  let decoded = 0;
  fc.assert(
    fc.property(hostile, fc.array(anyField, { maxLength: 3 }), (text, fields) => {
      const values = decodeCursor(text, fields);
      if (values === null) return;
      decoded++;
      assert.equal(encodeCursor(values), text);
    }),
    { numRuns },
  );
  t.diagnostic(`${numRuns} cases, ${decoded} of them happened to be cursors`);
});

test('what could not be read back is not written', () => {
  for (const bad of [[Number.NaN], [Number.POSITIVE_INFINITY], ['\0'], ['\ud800'], ['x'.repeat(400)]]) {
    assert.throws(() => encodeCursor(bad), RangeError);
  }
});
