import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { backoffMs } from './backoff.ts';

const almostOne = () => 1 - Number.EPSILON;

test('the bound doubles up to the maximum', () => {
  const bounds = [0, 1, 2, 3, 4, 2_000].map((attempt) =>
    Math.round(backoffMs(attempt, { baseMs: 100, maxMs: 1_000 }, almostOne)),
  );
  assert.deepEqual(bounds, [100, 200, 400, 800, 1_000, 1_000]);
  assert.equal(backoffMs(2_000, { baseMs: 0, maxMs: 1_000 }, almostOne), 0);
});

test('lies between 0 and the maximum, whatever the attempt', (t) => {
  const numRuns = 1_000;
  fc.assert(
    fc.property(fc.nat(), fc.nat(1e6), fc.nat(1e6), (attempt, baseMs, maxMs) => {
      const waitMs = backoffMs(attempt, { baseMs, maxMs });
      assert.ok(waitMs >= 0 && waitMs <= maxMs);
    }),
    { numRuns },
  );
  t.diagnostic(`${numRuns} cases`);
});

test('uses the whole range', () => {
  const shares = [0, 0.25, 0.5, 0.75];
  assert.deepEqual(
    shares.map((share) => backoffMs(1, { baseMs: 100, maxMs: 1_000 }, () => share)),
    [0, 50, 100, 150],
  );
});

test('an attempt that is none is an error, never a wait of nothing', () => {
  for (const bad of [-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY]) {
    assert.throws(() => backoffMs(bad, { baseMs: 1, maxMs: 2 }), RangeError);
  }
});
