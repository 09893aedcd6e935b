import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { BoundedMap } from './bounded-map.ts';

test('an entry is there until its end and not at it', () => {
  const map = new BoundedMap<string, number>(2);
  map.set('a', 1, 100);
  assert.equal(map.get('a', 99.9), 1);
  assert.equal(map.get('a', 100), undefined);
  assert.equal(map.size, 0);
});

test('the least recently used entry leaves first; reading and replacing are uses', () => {
  const map = new BoundedMap<string, number>(3);
  for (const [value, key] of ['a', 'b', 'c'].entries()) map.set(key, value, 100);
  assert.equal(map.get('a', 0), 0);
  map.set('b', 10, 100);
  map.set('d', 3, 100);
  assert.deepEqual(
    ['a', 'b', 'c', 'd'].map((key) => map.get(key, 0)),
    [0, 10, undefined, 3],
  );
  assert.equal(map.size, 3);
});

test('deletes one, some and all', () => {
  const map = new BoundedMap<string, { owner: string }>(10);
  map.set('k1', { owner: 'x' }, 100);
  map.set('k2', { owner: 'y' }, 100);
  map.set('k3', { owner: 'x' }, 100);
  assert.equal(map.delete('k3'), true);
  assert.equal(map.delete('k3'), false);
  assert.equal(
    map.deleteWhere(({ owner }) => owner === 'x'),
    1,
  );
  assert.deepEqual(map.get('k2', 0), { owner: 'y' });
  map.clear();
  assert.equal(map.size, 0);
});

test('undefined may be a value, and a map must have room', () => {
  const map = new BoundedMap<string, undefined>(1);
  map.set('a', undefined, 100);
  assert.equal(map.size, 1);
  for (const bad of [0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY])
    assert.throws(() => new BoundedMap(bad), RangeError);
});

test('agrees with a plain list kept in order of use', (t) => {
  const step = fc.record({
    act: fc.constantFrom('get', 'set', 'delete'),
    key: fc.nat(8),
    passMs: fc.nat(3),
    lifeMs: fc.nat(20),
  });
  const numRuns = 1_000;
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 5 }),
      fc.array(step, { maxLength: 100, size: 'max' }),
      (maxEntries, steps) => {
        const map = new BoundedMap<number, number>(maxEntries);
        let list: { key: number; value: number; endMs: number }[] = [];
        let nowMs = 0;
        for (const [value, { act, key, passMs, lifeMs }] of steps.entries()) {
          nowMs += passMs;
          const found = list.find((entry) => entry.key === key);
          list = list.filter((entry) => entry !== found);
          if (act === 'set') {
            map.set(key, value, nowMs + lifeMs);
            list = [...list, { key, value, endMs: nowMs + lifeMs }].slice(-maxEntries);
          } else if (act === 'delete') assert.equal(map.delete(key), found !== undefined);
          else {
            const alive = found !== undefined && nowMs < found.endMs;
            assert.equal(map.get(key, nowMs), alive ? found.value : undefined);
            if (alive) list.push(found);
          }
          assert.equal(map.size, list.length);
        }
      },
    ),
    { numRuns },
  );
  t.diagnostic(`${numRuns} cases`);
});
