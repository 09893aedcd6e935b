import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { z } from 'zod';
import { defineOperation } from '../../kernel/operation.ts';
import { type Flag, flagsOf, flagWords, kebab, readValue } from './flags.ts';
import { everyKind, paged } from './test-operations.ts';

function flag(property: string): Flag {
  const found = flagsOf(everyKind).find((candidate) => candidate.property === property);
  assert.ok(found, property);
  return found;
}

test('every field of the input is a flag or, in the path, a positional argument', () => {
  const written = flagsOf(everyKind).map((item) => (item.positional ? `<${item.word}>` : flagWords(item)));
  assert.deepEqual(written, [
    '<id>',
    '--name <text>',
    '--per-minute <number|null>',
    '--ratio <number>',
    '--kind <big|small>',
    '--tags <list>',
    '--counts <list>',
    '--note <text|null>',
    '--loud',
    '--until <time|null>',
    '--more <json>',
  ]);
  assert.deepEqual(
    flagsOf(everyKind)
      .filter((item) => item.required)
      .map((item) => item.property),
    ['id', 'name'],
  );
});

test('descriptions carry default, choices and how lists are given', () => {
  assert.equal(flag('kind').description, 'Its size (default big)');
  assert.equal(flag('tags').description, 'Its marks (comma-separated or repeated: a, b, c; default a)');
  assert.equal(flag('perMinute').description, 'At most so many');
  assert.equal(flagsOf(paged)[0]?.description, 'Items per page (default 50)');
});

test('values are read by kind', () => {
  assert.equal(readValue(flag('perMinute'), '60'), 60);
  assert.equal(readValue(flag('perMinute'), 'null'), null);
  assert.equal(readValue(flag('ratio'), '-0.5'), -0.5);
  assert.equal(readValue(flag('name'), '60'), '60');
  assert.equal(readValue(flag('name'), 'null'), 'null');
  assert.equal(readValue(flag('note'), 'null'), null);
  assert.equal(readValue(flag('loud'), false), false);
  assert.deepEqual(readValue(flag('tags'), ['a,b', 'c']), ['a', 'b', 'c']);
  assert.deepEqual(readValue(flag('tags'), ['']), []);
  assert.deepEqual(readValue(flag('counts'), ['1,2']), [1, 2]);
  assert.deepEqual(readValue(flag('more'), '{"x":1}'), { x: 1 });
});

test('what does not fit its kind is handed on as the text it is, for invoke to refuse', () => {
  for (const text of ['ten', '1e3', '0x10', '', ' 1', '1.', 'NaN']) {
    assert.equal(readValue(flag('perMinute'), text), text);
  }
  assert.equal(readValue(flag('more'), '{x'), '{x');
  assert.deepEqual(readValue(flag('counts'), ['1,x']), [1, 'x']);
});

test('numbers and lists come back as they were written', () => {
  fc.assert(
    fc.property(fc.integer(), fc.uniqueArray(fc.constantFrom('a', 'b', 'c')), (number, list) => {
      assert.equal(readValue(flag('ratio'), String(number)), number);
      assert.deepEqual(readValue(flag('tags'), [list.join(',')]), list);
      if (list.length > 0) assert.deepEqual(readValue(flag('tags'), list), list);
    }),
  );
});

test('a field that would hide a flag of every command is refused when the commands are made', () => {
  const hiding = defineOperation({
    ...everyKind,
    route: { method: 'POST', path: '/things' },
    input: z.strictObject({ user: z.string() }),
  });
  assert.throws(() => flagsOf(hiding), /--user would hide/);
});

test('words are joined by hyphens', () => {
  assert.equal(kebab('requestsPerMinute'), 'requests-per-minute');
  assert.equal(kebab('get_price'), 'get-price');
  assert.equal(kebab('id'), 'id');
});
