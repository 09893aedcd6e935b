import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { nearestNames } from './nearest-names.ts';

const KNOWN = ['BTC', 'ETH', 'ETC', 'SOL', 'DOGE', 'AVAX', 'MATIC', 'BCH', 'BITCOIN'];

test('finds the name behind one error of each kind', () => {
  assert.deepEqual(nearestNames('DOGEE', KNOWN), ['DOGE']);
  assert.deepEqual(nearestNames('DGE', KNOWN), ['DOGE']);
  assert.deepEqual(nearestNames('DOGI', KNOWN), ['DOGE']);
  assert.deepEqual(nearestNames('ODGE', KNOWN), ['DOGE']);
  assert.deepEqual(nearestNames('matci', KNOWN), ['MATIC']);
});

test('the nearest comes first, equally near names in their given order, no more than asked for', () => {
  assert.deepEqual(nearestNames('BTC', KNOWN), ['BTC', 'ETC']);
  assert.deepEqual(nearestNames('BTH', KNOWN), ['BTC', 'ETH', 'BCH']);
  assert.deepEqual(nearestNames('BTH', KNOWN, 1), ['BTC']);
  assert.deepEqual(nearestNames('BTH', KNOWN, 0), []);
});

test('more errors are forgiven in longer names, and none too many', () => {
  assert.deepEqual(nearestNames('BITKOYN', KNOWN), ['BITCOIN']);
  assert.deepEqual(nearestNames('BYTKOYN', KNOWN), []);
  assert.deepEqual(nearestNames('XYZ', KNOWN), []);
});

test('says nothing to nothing, to a single letter and to endless text', () => {
  assert.deepEqual(nearestNames('', KNOWN), []);
  assert.deepEqual(nearestNames('B', [...KNOWN, 'A']), []);
  assert.deepEqual(nearestNames('B'.repeat(33), ['B'.repeat(33)]), []);
  assert.deepEqual(nearestNames('ß'.repeat(32), ['S'.repeat(32), 'ß'.repeat(32)]), []);
  assert.deepEqual(nearestNames('B'.repeat(32), ['B'.repeat(33), 'B'.repeat(31)]), ['B'.repeat(31)]);
});

/** The distance straight from its definition, without a table and without a bound. */
function distance(a: string, b: string): number {
  if (a === '' || b === '') return a.length + b.length;
  const [shorterA, shorterB] = [a.slice(0, -1), b.slice(0, -1)];
  const changed = distance(shorterA, shorterB) + (a.at(-1) === b.at(-1) ? 0 : 1);
  const nearest = Math.min(changed, distance(shorterA, b) + 1, distance(a, shorterB) + 1);
  const swapped = a.length > 1 && b.length > 1 && a.at(-1) === b.at(-2) && a.at(-2) === b.at(-1);
  return swapped ? Math.min(nearest, distance(a.slice(0, -2), b.slice(0, -2)) + 1) : nearest;
}

test('names exactly those within the allowed number of errors', (t) => {
  const word = fc.array(fc.constantFrom('A', 'B', 'C'), { maxLength: 6 }).map((letters) => letters.join(''));
  const numRuns = 1_000;
  let near = 0;
  fc.assert(
    fc.property(word, word, (asked, name) => {
      const allowed = Math.min(asked.length - 1, asked.length < 4 ? 1 : 2);
      const isNear = distance(asked, name) <= allowed;
      assert.deepEqual(nearestNames(asked, [name]), isNear ? [name] : []);
      if (isNear) near++;
    }),
    { numRuns },
  );
  t.diagnostic(`${numRuns} pairs, ${near} near`);
});

test('one error in any name of three characters and more is found, and nothing is invented', (t) => {
  const letter = fc.constantFrom(...'ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789');
  const name = fc.array(letter, { minLength: 3, maxLength: 31 }).map((letters) => letters.join(''));
  const numRuns = 2_000;
  fc.assert(
    fc.property(
      name,
      fc.array(name, { maxLength: 5 }),
      fc.nat(),
      letter,
      fc.nat(3),
      (meant, others, where, added, kind) => {
        const at = where % meant.length;
        const swap = Math.min(at, meant.length - 2);
        const typed = [
          meant.slice(0, at) + added + meant.slice(at),
          meant.slice(0, at) + meant.slice(at + 1),
          meant.slice(0, at) + added + meant.slice(at + 1),
          meant.slice(0, swap) + meant.charAt(swap + 1) + meant.charAt(swap) + meant.slice(swap + 2),
        ][kind];
        const known = [...others, meant];
        const found = nearestNames(typed ?? '', known, known.length);
        assert.ok(found.includes(meant), `${typed} for ${meant}`);
        assert.ok(found.every((one) => known.includes(one)));
      },
    ),
    { numRuns },
  );
  t.diagnostic(`${numRuns} cases`);
});
