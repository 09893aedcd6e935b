import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type CacheState, FAILURE_TTL_MS, type FillOptions, openCache } from './cache.ts';

const TTL_MS = 60_000;
const GRACE_MS = 600_000;

/** A cache under a clock that the test moves. */
function setUp(maxEntries = 100) {
  const clock = { now: 1_000_000 };
  const cache = openCache({ maxEntries, monotonicMs: () => clock.now });
  const ask = <T>(key: string, factory: (signal: AbortSignal) => Promise<T>, options: Partial<FillOptions<T>> = {}) =>
    cache.getOrSet(key, { ttlMs: TTL_MS, graceMs: GRACE_MS, factory, ...options });
  return { clock, cache, ask };
}

const outage = new Error('upstream is down');
const failing = () => Promise.reject(outage);

test('a thousand concurrent misses run the factory once, and the next call is a hit', async () => {
  const { ask } = setUp();
  let calls = 0;
  const factory = async () => ({ price: String(++calls) });
  const answers = await Promise.all(Array.from({ length: 1_000 }, () => ask('k', factory)));
  assert.equal(calls, 1);
  assert.ok(answers.every(({ value, state }) => value.price === '1' && state === 'miss'));
  assert.deepEqual(await ask('k', factory), { value: { price: '1' }, state: 'hit' });
  assert.equal(calls, 1);
});

test('a thousand concurrent failures are one call of the factory, and everyone gets its own error', async () => {
  const { ask, clock } = setUp();
  let calls = 0;
  const factory = async () => {
    calls++;
    throw outage;
  };
  const answers = await Promise.allSettled(Array.from({ length: 1_000 }, () => ask('k', factory)));
  assert.ok(answers.every((answer) => answer.status === 'rejected' && answer.reason === outage));
  assert.equal(calls, 1);

  clock.now += FAILURE_TTL_MS - 1;
  await assert.rejects(ask('k', factory), outage);
  assert.equal(calls, 1, 'the failure is remembered');
  clock.now += 1;
  await assert.rejects(ask('k', factory), outage);
  assert.equal(calls, 2, 'and then forgotten');
});

test('a failing factory gives the stale value within the grace and its own error after it', async () => {
  const { ask, clock } = setUp();
  await ask('k', async () => 'first');
  clock.now += TTL_MS - 1;
  assert.deepEqual(await ask('k', failing), { value: 'first', state: 'hit' });
  clock.now += 1;
  assert.deepEqual(await ask('k', failing), { value: 'first', state: 'stale' });
  clock.now += GRACE_MS - 1;
  assert.deepEqual(await ask('k', failing), { value: 'first', state: 'stale' });
  clock.now += 1;
  await assert.rejects(ask('k', failing), outage);
  clock.now += FAILURE_TTL_MS;
  assert.deepEqual(await ask('k', async () => 'second'), { value: 'second', state: 'miss' });
});

test('who has a stale value at hand waits no longer than the timeout, and the refresh goes on', {
  timeout: 5_000,
}, async () => {
  const { ask, clock } = setUp();
  await ask('k', async () => 'first');
  clock.now += TTL_MS;
  const refresh = Promise.withResolvers<string>();
  let calls = 0;
  const slow = () => {
    calls++;
    return refresh.promise;
  };
  assert.deepEqual(await ask('k', slow, { timeoutMs: 5 }), { value: 'first', state: 'stale' });
  clock.now += 5;
  assert.deepEqual(await ask('k', slow, { timeoutMs: 5 }), { value: 'first', state: 'stale' });
  assert.equal(calls, 1);

  const patient = ask('k', slow);
  refresh.resolve('second');
  assert.deepEqual(await patient, { value: 'second', state: 'miss' });
  assert.deepEqual(await ask('k', slow, { timeoutMs: 5 }), { value: 'second', state: 'hit' });
});

test('a refresh that fails after everyone took the stale value harms nobody', async () => {
  const { ask, clock } = setUp();
  await ask('k', async () => 'first');
  clock.now += TTL_MS;
  const refresh = Promise.withResolvers<string>();
  assert.deepEqual(await ask('k', () => refresh.promise, { timeoutMs: 0 }), { value: 'first', state: 'stale' });
  refresh.reject(outage);
  assert.deepEqual(await ask('k', failing), { value: 'first', state: 'stale' });
});

test('who waits past the end of the grace gets the fresh value, not one that is gone', async () => {
  const { ask, clock } = setUp();
  await ask('k', async () => 'first');
  clock.now += TTL_MS + GRACE_MS - 1;
  const refresh = Promise.withResolvers<string>();
  const answer = ask('k', () => refresh.promise, { timeoutMs: 0 });
  assert.deepEqual(await answer, { value: 'first', state: 'stale' });
  const waiting = ask('k', () => refresh.promise, { timeoutMs: 5 });
  clock.now += 1;
  refresh.resolve('second');
  assert.deepEqual(await waiting, { value: 'second', state: 'miss' });
});

test('what is handed out cannot be changed, and what cannot be frozen is refused', async () => {
  const { ask } = setUp();
  const { value } = await ask('k', async () => ({ list: [{ name: 'a' }] }));
  assert.throws(() => value.list.push({ name: 'b' }), TypeError);
  assert.throws(() => Object.assign(value.list[0] ?? {}, { name: 'c' }), TypeError);
  assert.deepEqual((await ask('k', failing)).value, { list: [{ name: 'a' }] });
  await assert.rejects(
    ask('date', async () => ({ at: new Date() })),
    /plain data/,
  );
});

test('a deleted key is fetched again, and a factory that ran meanwhile fills nothing', async () => {
  const { ask, cache } = setUp();
  const late = Promise.withResolvers<string>();
  const before = ask('k', () => late.promise);
  await cache.delete('k');
  assert.deepEqual(await ask('k', async () => 'new'), { value: 'new', state: 'miss' });
  late.resolve('old');
  assert.equal((await before).value, 'old');
  assert.deepEqual(await ask('k', failing), { value: 'new', state: 'hit' });
  await cache.delete('k');
  await assert.rejects(ask('k', failing), outage);
  await cache.delete('k');
  assert.equal((await ask('k', async () => 'again')).value, 'again', 'the failure is forgotten too');
});

test('the least recently used value leaves first', async () => {
  const { ask } = setUp(2);
  for (const key of ['a', 'b']) await ask(key, async () => key);
  await ask('a', failing);
  await ask('c', async () => 'c');
  assert.equal((await ask('a', failing)).state, 'hit');
  await assert.rejects(ask('b', failing), outage);
});

test('closing aborts what is under way and refuses what would start', { timeout: 5_000 }, async () => {
  const { ask, cache } = setUp();
  const started = Promise.withResolvers<void>();
  const answer = ask('k', (signal) => {
    started.resolve();
    return new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
  });
  await started.promise;
  const starting = ask('k1', async () => 'x');
  await cache.close();
  await assert.rejects(answer, /the cache is closed/);
  await assert.rejects(starting, /the cache is closed/);
  await assert.rejects(
    ask('k2', async () => 'x'),
    /the cache is closed/,
  );
});

test('the state is true after any sequence of waits, answers and failures', async () => {
  const step = fc.record({ waitMs: fc.integer({ min: 0, max: 2 * FAILURE_TTL_MS }), fails: fc.boolean() });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
      const { ask, clock } = setUp();
      const [ttlMs, graceMs] = [FAILURE_TTL_MS, 3 * FAILURE_TTL_MS];
      let filledAtMs = Number.NEGATIVE_INFINITY;
      let failedAtMs = Number.NEGATIVE_INFINITY;
      for (const { waitMs, fails } of steps) {
        clock.now += waitMs;
        const ageMs = clock.now - filledAtMs;
        const asks = ageMs >= ttlMs && clock.now - failedAtMs >= FAILURE_TTL_MS;
        let calls = 0;
        const factory = async () => {
          calls++;
          if (fails) throw outage;
          return clock.now;
        };
        const old = ageMs < ttlMs ? 'hit' : ageMs < ttlMs + graceMs ? 'stale' : 'error';
        const expected: CacheState | 'error' = asks && !fails ? 'miss' : old;
        if (asks && fails) failedAtMs = clock.now;
        if (asks && !fails) filledAtMs = clock.now;
        const answer = await ask('k', factory, { ttlMs, graceMs }).catch(() => ({ state: 'error', value: undefined }));
        assert.equal(answer.state, expected);
        assert.equal(calls, asks ? 1 : 0);
        if (answer.state !== 'error') assert.equal(answer.value, filledAtMs);
      }
    }),
    { numRuns: 300 },
  );
});
