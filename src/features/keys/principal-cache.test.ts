import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { inspect } from 'node:util';
import fc from 'fast-check';
import type { Principal } from '../../kernel/context.ts';
import { AppError } from '../../kernel/errors.ts';
import { DatabaseUnavailableError } from '../../platform/postgres.ts';
import { createPrincipalCache, type Loaded, type PrincipalCacheOptions, type Tag } from './principal-cache.ts';

const FRESH_MS = 100;
const GRACE_MS = 1_000;
const ENTRIES_MAX = 3;

/** A cache on clocks that a test moves, and what it told about itself. */
function cacheOnClock(change: Partial<PrincipalCacheOptions> = {}) {
  const clock = { monotonicMs: 5_000, wallMs: 1_000_000 };
  const observed: string[] = [];
  const cache = createPrincipalCache({
    entriesMax: ENTRIES_MAX,
    freshMs: () => FRESH_MS,
    outageGraceMs: GRACE_MS,
    monotonicMs: () => clock.monotonicMs,
    wallClockMs: () => clock.wallMs,
    observe: (result) => observed.push(result),
    ...change,
  });
  return {
    cache,
    observed,
    clock,
    advance(ms: number) {
      clock.monotonicMs += ms;
      clock.wallMs += ms;
    },
  };
}

/** A principal that can be told apart by its name. */
function principal(name: string): Principal {
  return {
    kind: 'api_key',
    ownerId: name,
    userId: name,
    orgId: null,
    role: null,
    permissions: new Set(),
    tier: 'free',
    limits: { requestsPerMinute: 1, requestsPerMonth: 1, maxApiKeys: 1 },
    key: null,
    service: null,
    scopes: null,
  };
}

const loaded = (name: string, change: Partial<Loaded> = {}): Loaded => ({
  principal: principal(name),
  tags: ['family:f'],
  expiresAtMs: null,
  ...change,
});

const always = (value: Loaded) => () => Promise.resolve(value);
const away = () => Promise.reject(new DatabaseUnavailableError(new Error('away')));
const never = () => assert.fail('nothing may be asked');

test('an answer is used while fresh, and asked for again afterwards', async () => {
  const { cache, advance, observed } = cacheOnClock();
  assert.equal(cache.get('c'), undefined);
  assert.equal((await cache.load('c', always(loaded('one'))))?.userId, 'one');
  advance(FRESH_MS - 1);
  assert.equal(cache.get('c')?.userId, 'one');
  advance(1);
  assert.equal(cache.get('c'), undefined);
  assert.equal((await cache.load('c', always(loaded('two'))))?.userId, 'two');
  assert.equal(cache.get('c')?.userId, 'two');
  assert.deepEqual(observed, ['miss', 'hit', 'miss', 'hit']);
});

test('an epoch that was heard holds for a minute, so that a wrong one does not refuse an owner for ever', async () => {
  const { cache, advance } = cacheOnClock();
  const old = loaded('one', { tags: ['owner:o'], ownerEpoch: 3 });
  cache.invalidate(['owner:o'], { o: 1_000 });
  await assert.rejects(cache.load('c', always(old)), { code: 'unavailable' });
  advance(60_000);
  assert.equal((await cache.load('c', always(old)))?.userId, 'one');
});

test('what was known before a clear is not believed, and is no stranger either', async () => {
  let gated = 0;
  const { cache } = cacheOnClock({
    strangers: (lookUp) => {
      gated += 1;
      return lookUp();
    },
  });
  await cache.load('known', always(loaded('one')));
  assert.equal(gated, 1);
  cache.clear();
  assert.equal(cache.get('known'), undefined);
  assert.equal((await cache.load('known', always(loaded('two'))))?.userId, 'two');
  await assert.rejects(cache.load('unknown', away));
  assert.equal(gated, 2, 'only who was never seen goes through the gate');
});

test('freshness counts from before the question, not from the answer', async () => {
  const { cache, advance } = cacheOnClock();
  const answer = Promise.withResolvers<Loaded>();
  const load = cache.load('c', () => answer.promise);
  advance(FRESH_MS);
  answer.resolve(loaded('slow'));
  assert.equal((await load)?.userId, 'slow');
  assert.equal(cache.get('c'), undefined);
});

test('a refusal is remembered like an answer, and cleared by its tags', async () => {
  const { cache } = cacheOnClock();
  assert.equal(await cache.load('c', always(loaded('x', { principal: null, tags: ['owner:o'] }))), null);
  assert.equal(cache.get('c'), null);
  cache.invalidate(['owner:other']);
  assert.equal(cache.get('c'), null);
  cache.invalidate(['owner:o']);
  assert.equal(cache.get('c'), undefined);
});

test('a credential expires by the wall clock, whatever is remembered', async () => {
  const { cache, clock } = cacheOnClock();
  const expiring = loaded('x', { expiresAtMs: clock.wallMs + 10 });
  assert.equal((await cache.load('c', always(expiring)))?.userId, 'x');
  clock.wallMs += 9;
  assert.equal(cache.get('c')?.userId, 'x');
  clock.wallMs += 1;
  assert.equal(cache.get('c'), null);
  assert.equal(await cache.load('d', always(expiring)), null);
  clock.monotonicMs += FRESH_MS;
  assert.equal(await cache.load('c', away), null, 'an outage does not lengthen its life');
});

test('calls for one credential share one load, and the next starts another', async () => {
  const { cache } = cacheOnClock();
  const answer = Promise.withResolvers<Loaded>();
  let asked = 0;
  const loader = () => {
    asked += 1;
    return answer.promise;
  };
  const loads = Array.from({ length: 50 }, () => cache.load('c', loader));
  const other = cache.load('d', always(loaded('other')));
  answer.resolve(loaded('one'));
  for (const result of await Promise.all(loads)) assert.equal(result?.userId, 'one');
  assert.equal((await other)?.userId, 'other');
  assert.equal(asked, 1);
  await cache.load('c', loader);
  assert.equal(asked, 2);
});

test('a load that fails is told to all who wait, and is not remembered', async () => {
  const { cache } = cacheOnClock();
  const broken = new Error('broken');
  const loads = await Promise.allSettled([1, 2].map(() => cache.load('c', () => Promise.reject(broken))));
  for (const load of loads) assert.equal(load.status === 'rejected' && load.reason, broken);
  assert.equal(cache.get('c'), undefined);
  assert.equal(cache.size(), 0);
  const thrown = cache.load('c', () => {
    throw broken;
  });
  await assert.rejects(thrown, broken);
  assert.equal((await cache.load('c', always(loaded('one'))))?.userId, 'one');
});

test('no more than the bound is kept; the longest unasked leaves first', async () => {
  const { cache } = cacheOnClock();
  for (const name of ['a', 'b', 'c']) await cache.load(name, always(loaded(name)));
  await cache.load('a', always(loaded('a')));
  await cache.load('d', always(loaded('d')));
  assert.equal(cache.size(), ENTRIES_MAX);
  assert.deepEqual(
    ['a', 'b', 'c', 'd'].map((name) => cache.get(name)?.userId),
    ['a', undefined, 'c', 'd'],
  );
});

test('credentials that are none do not push out those that are', async () => {
  const { cache } = cacheOnClock();
  await cache.load('real', always(loaded('real')));
  for (let guess = 0; guess < 10 * ENTRIES_MAX; guess += 1) {
    await cache.load(`guess ${guess}`, always({ principal: null, tags: [], expiresAtMs: null }));
  }
  assert.equal(cache.get('real')?.userId, 'real');
  assert.equal(cache.get(`guess ${10 * ENTRIES_MAX - 1}`), null);
  assert.ok(cache.size() <= 2 * ENTRIES_MAX);
});

test('while the database is away the last answer stands, for the grace and no longer', async () => {
  const { cache, advance, observed } = cacheOnClock();
  await cache.load('c', always(loaded('one')));
  advance(FRESH_MS);
  assert.equal((await cache.load('c', away))?.userId, 'one');
  await assert.rejects(cache.load('unknown', away), DatabaseUnavailableError);
  assert.equal((await cache.load('c', never))?.userId, 'one', 'not asked again at once');
  advance(GRACE_MS - FRESH_MS - 1);
  assert.equal((await cache.load('c', away))?.userId, 'one');
  advance(1);
  await assert.rejects(cache.load('c', away), DatabaseUnavailableError);
  assert.deepEqual(observed, ['miss', 'miss', 'grace', 'miss', 'grace', 'grace', 'miss']);
});

test('only an outage is graced: other failures and refusals are not hidden', async () => {
  const { cache, advance } = cacheOnClock();
  await cache.load('c', always(loaded('one')));
  advance(FRESH_MS);
  await assert.rejects(
    cache.load('c', () => Promise.reject(new TypeError('a mistake'))),
    TypeError,
  );
  await assert.rejects(
    cache.load('c', () => Promise.reject(new AppError('internal'))),
    AppError,
  );
});

test('as soon as the database answers anybody, everybody is asked for again', async () => {
  const { cache, advance } = cacheOnClock();
  await cache.load('c', always(loaded('old')));
  advance(FRESH_MS);
  assert.equal((await cache.load('c', away))?.userId, 'old');
  await cache.load('d', always(loaded('d')));
  assert.equal((await cache.load('c', always(loaded('new'))))?.userId, 'new');
});

test('an invalidated answer is never graced, also when the invalidation arrives during the outage', async () => {
  const { cache, advance } = cacheOnClock();
  for (const forget of [() => cache.invalidate(['family:f']), () => cache.clear()]) {
    await cache.load('c', always(loaded('one')));
    advance(FRESH_MS);
    const failing = Promise.withResolvers<Loaded>();
    const load = cache.load('c', () => failing.promise);
    forget();
    failing.reject(new DatabaseUnavailableError(new Error('away')));
    await assert.rejects(load, DatabaseUnavailableError);
    await assert.rejects(cache.load('c', away), DatabaseUnavailableError);
    advance(GRACE_MS);
  }
});

test('a load that keeps being overtaken gives up', async () => {
  const { cache } = cacheOnClock();
  let asked = 0;
  const load = cache.load('c', () => {
    asked += 1;
    cache.invalidate(['family:f']);
    return Promise.resolve(loaded('old'));
  });
  await assert.rejects(load, { code: 'unavailable' });
  assert.equal(asked, 5);
  assert.equal(cache.get('c'), undefined);
});

test('a load is not repeated for what concerns others, unless it has been away too long to know', async () => {
  for (const [others, asks] of [
    [1_000, 1],
    [1_001, 2],
  ] as const) {
    const { cache } = cacheOnClock();
    let asked = 0;
    await cache.load('c', () => {
      asked += 1;
      if (asked === 1) for (let other = 0; other < others; other += 1) cache.invalidate([`family:${other}`]);
      return Promise.resolve(loaded('one'));
    });
    assert.equal(asked, asks);
  }
});

test('a row older than what was heard of its owner is not believed, however late it was asked for', async () => {
  const { cache } = cacheOnClock();
  const row = (ownerEpoch: number | null) => loaded('one', { tags: ['family:f', 'owner:o'], ownerEpoch });
  cache.invalidate(['family:f'], { o: 7, p: 9 });
  cache.invalidate(['family:g'], { o: 5 });
  let asked = 0;
  const lagging = () => {
    asked += 1;
    return Promise.resolve(row(asked < 3 ? 6 : 7));
  };
  assert.equal((await cache.load('c', lagging))?.userId, 'one');
  assert.equal(asked, 3);
  await assert.rejects(cache.load('d', always(row(6))), { code: 'unavailable' });
  assert.equal((await cache.load('e', always(row(null))))?.userId, 'one', 'nothing is known of its age');
  // As after a restore from a backup: what counts is what the database says now.
  cache.clear();
  assert.equal((await cache.load('d', always(row(2))))?.userId, 'one');
});

test('how long an answer is fresh is asked anew every time', async () => {
  let freshMs = FRESH_MS;
  const { cache, advance } = cacheOnClock({ freshMs: () => freshMs });
  await cache.load('c', always(loaded('one')));
  advance(FRESH_MS / 2);
  freshMs = FRESH_MS / 4;
  assert.equal(cache.get('c'), undefined);
  freshMs = FRESH_MS;
  assert.equal(cache.get('c')?.userId, 'one');
});

/** Steps of a random history. Every credential has its own family; all have one owner. */
const CREDENTIALS = 4;
const credential = fc.nat({ max: CREDENTIALS - 1 });
const step = fc.oneof(
  { weight: 4, arbitrary: fc.record({ do: fc.constant('load' as const), credential }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('get' as const), credential }) },
  {
    weight: 2,
    // From the newest snapshot, or from one that many changes older.
    arbitrary: fc.record({ do: fc.constant('read' as const), at: fc.nat(), behind: fc.constantFrom(0, 0, 1, 2) }),
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('answer' as const), at: fc.nat() }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('fail' as const), at: fc.nat() }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('change' as const), credential }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('invalidate' as const),
      credential,
      by: fc.constantFrom('family', 'owner'),
    }),
  },
  { weight: 1, arbitrary: fc.constant({ do: 'clear' as const }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('ticks' as const), count: fc.integer({ min: 1, max: 8 }) }) },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('advance' as const),
      ms: fc.integer({ min: FRESH_MS / 2, max: 2 * FRESH_MS }),
    }),
  },
);

test('whatever the order of events: after an invalidation nothing older than it is answered', async () => {
  let repeated = 0;
  let graced = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 60, size: 'max' }), async (steps) => {
      const { cache, advance, observed } = cacheOnClock();
      /** The database: the version of each credential; and the oldest version that may still be answered. */
      const truth = Array.from({ length: CREDENTIALS }, () => 0);
      const oldest = Array.from({ length: CREDENTIALS }, () => 0);
      /** Every state the database was in, by the owner's epoch; a clear ends all reading of those before it. */
      const states = [[...truth]];
      let readableFrom = 0;
      type Seen = { readonly version: number; readonly epoch: number };
      const reads: { credential: number; seen: Seen | undefined; answer: PromiseWithResolvers<Loaded> }[] = [];
      const loads: { credential: number; promise: Promise<Principal | null>; oldest: number; faults: string[] }[] = [];
      let reading = 0;

      const loader = (of: number) => () => {
        reading += 1;
        assert.ok(!reads.some((read) => read.credential === of), 'one question at a time about a credential');
        const answer = Promise.withResolvers<Loaded>();
        reads.push({ credential: of, seen: undefined, answer });
        return answer.promise;
      };
      const take = (at: number) => reads.splice(at % Math.max(1, reads.length), 1)[0];
      const see = (of: number, behind: number): Seen => {
        const epoch = Math.max(readableFrom, states.length - 1 - behind);
        return { version: states[epoch]?.[of] ?? 0, epoch };
      };
      const answer = (read: (typeof reads)[number]) => {
        const { version, epoch } = read.seen ?? see(read.credential, 0);
        const tags: Tag[] = [`family:${read.credential}`, 'owner:o'];
        read.answer.resolve({ principal: principal(String(version)), tags, expiresAtMs: null, ownerEpoch: epoch });
      };
      const invalidated = (which: (of: number) => boolean) => {
        for (let of = 0; of < CREDENTIALS; of += 1) if (which(of)) oldest[of] = truth[of] ?? 0;
        for (const load of loads) {
          if (which(load.credential) && inspect(load.promise).includes('<pending>'))
            load.oldest = oldest[load.credential] ?? 0;
        }
      };

      for (const next of steps) {
        if (next.do === 'load') {
          const promise = cache.load(String(next.credential), loader(next.credential));
          const load = {
            credential: next.credential,
            promise,
            oldest: oldest[next.credential] ?? 0,
            faults: [] as string[],
          };
          loads.push(load);
          promise.then(
            (found) => {
              if (Number(found?.userId) < load.oldest)
                load.faults.push(`answered ${found?.userId}, not ${load.oldest}`);
            },
            () => undefined,
          );
        } else if (next.do === 'get') {
          const found = cache.get(String(next.credential));
          if (found) assert.ok(Number(found.userId) >= (oldest[next.credential] ?? 0), 'an old answer was remembered');
        } else if (next.do === 'read') {
          const read = reads[next.at % Math.max(1, reads.length)];
          if (read !== undefined) read.seen ??= see(read.credential, next.behind);
        } else if (next.do === 'answer') {
          const read = take(next.at);
          if (read !== undefined) answer(read);
        } else if (next.do === 'fail') {
          take(next.at)?.answer.reject(new DatabaseUnavailableError(new Error('away')));
        } else if (next.do === 'change') {
          truth[next.credential] = (truth[next.credential] ?? 0) + 1;
          states.push([...truth]);
        } else if (next.do === 'invalidate') {
          const tag: Tag = next.by === 'owner' ? 'owner:o' : `family:${next.credential}`;
          cache.invalidate([tag], { o: states.length - 1 });
          invalidated((of) => next.by === 'owner' || of === next.credential);
        } else if (next.do === 'clear') {
          cache.clear();
          readableFrom = states.length - 1;
          invalidated(() => true);
        } else if (next.do === 'ticks') {
          for (let tick = 0; tick < next.count; tick += 1) await Promise.resolve();
        } else advance(next.ms);
        assert.ok(cache.size() <= 2 * ENTRIES_MAX);
      }
      for (let rest = 0; rest < 10 * CREDENTIALS; rest += 1) {
        await turn();
        for (const read of reads.splice(0)) answer(read);
      }
      await Promise.allSettled(loads.map((load) => load.promise));
      assert.deepEqual(
        loads.flatMap((load) => load.faults),
        [],
      );
      repeated += Number(reading > observed.filter((result) => result === 'miss').length);
      graced += Number(observed.includes('grace'));
    }),
    { numRuns: 3_000 },
  );
  assert.ok(
    repeated > 100 && graced > 100,
    `the histories were too tame: ${repeated} with repeats, ${graced} with grace`,
  );
});
