import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { uuidV7, uuidV7Time } from './uuid-v7.ts';

const NOW_MS = Date.UTC(2026, 0, 1);

test('has the form of RFC 9562 and holds the time', (t) => {
  const numRuns = 2_000;
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 2 ** 48 - 1 }), (ms) => {
      // Beyond any earlier time or far before it, so that the time asked for is the time written.
      uuidV7(0);
      uuidV7(2 ** 48 - 1);
      const uuid = uuidV7(ms);
      assert.match(uuid, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
      const heldBack = ms >= 2 ** 48 - 1 - 10_000;
      assert.equal(uuidV7Time(uuid), heldBack ? 2 ** 48 - 1 : ms);
    }),
    { numRuns },
  );
  t.diagnostic(`${numRuns} times`);
});

test('reads the example of RFC 9562, appendix A.6', () => {
  assert.equal(uuidV7Time('017F22E2-79B0-7CC3-98C4-DC0C0C07398F'), 0x017f22e279b0);
});

test('increases strictly: within a millisecond, over fractions, and when the clock is set back a little', (t) => {
  let previous = uuidV7(NOW_MS);
  const count = 200_000;
  for (let i = 0; i < count; i++) {
    const uuid = uuidV7(NOW_MS + Math.floor(i / 50_000) + (i % 10) / 10 - (i % 3 === 0 ? 5_000 : 0));
    assert.ok(uuid > previous);
    previous = uuid;
  }
  assert.equal(uuidV7Time(previous), NOW_MS + 3);
  t.diagnostic(`${count} in order`);
});

test('a clock set far back is believed', () => {
  uuidV7(NOW_MS);
  assert.equal(uuidV7Time(uuidV7(NOW_MS - 86_400_000)), NOW_MS - 86_400_000);
});

test('none repeats and the random part is random', () => {
  const uuids = new Set<string>();
  const tails = new Set<string>();
  const starts = new Set<string>();
  for (let i = 0; i < 5_000; i++) {
    const uuid = uuidV7(NOW_MS + 1_000_000 + i);
    uuids.add(uuid);
    tails.add(uuid.slice(24));
    starts.add(uuid.slice(15, 23));
  }
  assert.equal(uuids.size, 5_000);
  assert.equal(tails.size, 5_000);
  assert.ok(starts.size > 4_900, 'the counter does not start at random');
});

test('what is no time and what is no UUID of version 7 is refused', () => {
  for (const bad of [-1, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 48]) assert.throws(() => uuidV7(bad), RangeError);
  const good = uuidV7(NOW_MS);
  for (const bad of [
    '',
    good.slice(1),
    `${good}0`,
    good.replace(/-7/, '-4'),
    `${good.slice(0, 19)}c${good.slice(20)}`,
  ]) {
    assert.throws(() => uuidV7Time(bad), RangeError);
  }
});
