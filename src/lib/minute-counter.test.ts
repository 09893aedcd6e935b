import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createMinuteCounter } from './minute-counter.ts';

test('each subject has its own bound, which is free again with the next minute', () => {
  const mayGoOn = createMinuteCounter({ perMinuteMax: 2, subjectsMax: 100 });
  assert.deepEqual(
    [1, 2, 3].map(() => mayGoOn('a', 60_000)),
    [true, true, false],
  );
  assert.equal(mayGoOn('b', 60_000), true);
  assert.equal(mayGoOn('a', 119_999), false);
  assert.equal(mayGoOn('a', 120_000), true);
});

test('memory is bounded: with too many subjects the counting starts over', () => {
  const mayGoOn = createMinuteCounter({ perMinuteMax: 1, subjectsMax: 2 });
  assert.equal(mayGoOn('a', 0), true);
  assert.equal(mayGoOn('b', 0), true);
  assert.equal(mayGoOn('c', 0), true);
  assert.equal(mayGoOn('c', 0), false);
});
