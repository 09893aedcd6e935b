import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { SlidingWindow } from './sliding-window.ts';

const WINDOW_MS = 60;
// Every time is a multiple of an eighth of a millisecond, so that adding and subtracting times is exact.
const TICK_MS = 1 / 8;

/** Every admission by itself: what the window must never contradict. */
class ExactLog {
  readonly #admissions: { atMs: number; cost: number }[] = [];

  add(atMs: number, cost: number): void {
    this.#admissions.push({ atMs, cost });
  }

  /** Units admitted in (nowMs - windowMs, nowMs]. */
  units(nowMs: number, windowMs: number): number {
    return this.#admissions.reduce(
      (sum, { atMs, cost }) => (atMs + windowMs > nowMs && atMs <= nowMs ? sum + cost : sum),
      0,
    );
  }
}

/** Mostly crowded moments, sometimes a pause of the order of a window. */
const pauseMs = fc
  .oneof(
    { weight: 6, arbitrary: fc.constant(0) },
    { weight: 8, arbitrary: fc.integer({ min: 1, max: 12 }) },
    { weight: 3, arbitrary: fc.integer({ min: 1, max: 80 }) },
    { weight: 1, arbitrary: fc.integer({ min: 300, max: 1_200 }) },
  )
  .map((ticks) => ticks * TICK_MS);
const cost = fc.oneof(
  { weight: 4, arbitrary: fc.constant(1) },
  { weight: 1, arbitrary: fc.integer({ min: 0, max: 40 }) },
);
const limit = fc.oneof(fc.integer({ min: 0, max: 20 }), fc.integer({ min: 21, max: 400 }));
const arrivals = fc.array(fc.record({ pauseMs, cost }), { maxLength: 300, size: 'max' });

test('no window ever holds more than the limit: any arrivals, costs, limits, and a clock that steps back', (t) => {
  const arrival = fc.record({
    stepMs: fc.oneof({ weight: 15, arbitrary: pauseMs }, { weight: 1, arbitrary: pauseMs.map((ms) => -ms) }),
    cost,
    limit: fc.option(limit, { freq: 12, nil: undefined }),
  });
  let admissions = 0;
  let refusals = 0;
  const numRuns = 3_000;
  fc.assert(
    fc.property(limit, fc.array(arrival, { maxLength: 300, size: 'max' }), (firstLimit, steps) => {
      const window = new SlidingWindow(WINDOW_MS);
      const log = new ExactLog();
      let nowMs = 1_000;
      let latestMs = Number.NEGATIVE_INFINITY;
      let current = firstLimit;
      for (const step of steps) {
        nowMs += step.stepMs;
        latestMs = Math.max(latestMs, nowMs);
        current = step.limit ?? current;
        const before = log.units(latestMs, WINDOW_MS);
        const verdict = window.admit(nowMs, current, step.cost);
        if (verdict.admitted && step.cost > 0) {
          log.add(latestMs, step.cost);
          assert.ok(before + step.cost <= current, `${before} + ${step.cost} units with a limit of ${current}`);
          admissions++;
        } else if (!verdict.admitted) refusals++;
        assert.ok(
          verdict.remaining <= Math.max(0, current - log.units(latestMs, WINDOW_MS)),
          'promises more than is left',
        );
      }
    }),
    { numRuns },
  );
  assert.ok(admissions > numRuns && refusals > numRuns, 'the patterns must reach both answers often');
  t.diagnostic(`${numRuns} cases, ${admissions} admissions, ${refusals} refusals`);
});

test('refuses only what an exact log would refuse, but for a sixtieth of the window and of the limit', (t) => {
  let refusals = 0;
  const numRuns = 2_000;
  fc.assert(
    fc.property(limit, arrivals, (fixedLimit, steps) => {
      const window = new SlidingWindow(WINDOW_MS);
      const log = new ExactLog();
      let nowMs = 0;
      for (const step of steps) {
        nowMs += step.pauseMs;
        const verdict = window.admit(nowMs, fixedLimit, step.cost);
        if (verdict.admitted) log.add(nowMs, step.cost);
        else {
          refusals++;
          assert.ok(log.units(nowMs, WINDOW_MS * (1 + 1 / 60)) + step.cost > fixedLimit, 'held longer than a sixtieth');
          const late = fixedLimit < 120 ? 0 : fixedLimit / 60;
          assert.ok(log.units(nowMs, WINDOW_MS) + late + step.cost > fixedLimit, 'held more than a sixtieth');
        }
      }
    }),
    { numRuns },
  );
  assert.ok(refusals > numRuns);
  t.diagnostic(`${numRuns} cases, ${refusals} refusals`);
});

test('a first burst gets exactly the limit, at once or spread over less than a window', (t) => {
  const numRuns = 1_000;
  const spreads = fc.array(fc.integer({ min: 0, max: WINDOW_MS * 8 - 1 }), { minLength: 1, maxLength: 20 });
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 3_000 }), spreads, (fixedLimit, moments) => {
      const window = new SlidingWindow(WINDOW_MS);
      const times = moments.map((ticks) => ticks * TICK_MS).sort((a, b) => a - b);
      let admitted = 0;
      for (let call = 0; call < fixedLimit + 20; call++) {
        const nowMs = times[Math.floor((call * times.length) / (fixedLimit + 20))] ?? 0;
        if (window.admit(nowMs, fixedLimit, 1).admitted) admitted++;
      }
      assert.equal(admitted, fixedLimit);
    }),
    { numRuns },
  );
  t.diagnostic(`${numRuns} cases`);
});

test('under saturation every window admits at least 59/60 of the limit, whatever came before', (t) => {
  let windows = 0;
  let leastShare = 1;
  const numRuns = 200;
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 500 }), arrivals, (fixedLimit, steps) => {
      const window = new SlidingWindow(WINDOW_MS);
      let nowMs = 0;
      for (const step of steps) {
        nowMs += step.pauseMs;
        window.admit(nowMs, fixedLimit, step.cost);
      }
      const ticksPerWindow = WINDOW_MS / TICK_MS;
      const perTick: number[] = [];
      let inWindow = 0;
      for (let tick = 0; tick < 3 * ticksPerWindow; tick++) {
        nowMs += TICK_MS;
        let admitted = 0;
        while (window.admit(nowMs, fixedLimit, 1).admitted) admitted++;
        perTick.push(admitted);
        inWindow += admitted - (perTick[tick - ticksPerWindow] ?? 0);
        assert.ok(inWindow <= fixedLimit);
        if (tick < ticksPerWindow - 1) continue;
        const least = fixedLimit < 120 ? fixedLimit : (fixedLimit * 59) / 60;
        assert.ok(inWindow >= least, `${inWindow} admitted with a limit of ${fixedLimit}`);
        leastShare = Math.min(leastShare, inWindow / fixedLimit);
        windows++;
      }
    }),
    { numRuns },
  );
  t.diagnostic(
    `${numRuns} cases, ${windows} windows, the poorest admitted ${(100 * leastShare).toFixed(2)} % of the limit`,
  );
});

test('calls at random moments, twice as many as allowed, still get 98 % of the limit', (t) => {
  const fixedLimit = 1_000;
  const windows = 20;
  let least = Number.POSITIVE_INFINITY;
  fc.assert(
    fc.property(fc.infiniteStream(fc.integer({ min: 0, max: 1_000_000 })), (parts) => {
      const window = new SlidingWindow(WINDOW_MS);
      let admitted = 0;
      for (let nowMs = 0; nowMs < windows * WINDOW_MS; ) {
        if (window.admit(nowMs, fixedLimit, 1).admitted) admitted++;
        nowMs += ((parts.next().value ?? 0) / 1_000_000) * (WINDOW_MS / fixedLimit);
      }
      least = Math.min(least, admitted / (windows * fixedLimit));
      assert.ok(admitted >= 0.98 * windows * fixedLimit, `${admitted} admitted in ${windows} windows`);
    }),
    { numRuns: 10 },
  );
  t.diagnostic(`the poorest run admitted ${(100 * least).toFixed(2)} % of the limit`);
});

test('a refusal says exactly when the cost fits and when the window is whole, and checking takes nothing', (t) => {
  let checked = 0;
  const numRuns = 2_000;
  fc.assert(
    fc.property(limit, arrivals, fc.nat(20), (fixedLimit, steps, refusalsToSkip) => {
      const window = new SlidingWindow(WINDOW_MS);
      let nowMs = 0;
      let skip = refusalsToSkip;
      for (const step of steps) {
        nowMs += step.pauseMs;
        const asked = window.check(nowMs, fixedLimit, step.cost);
        assert.deepEqual(window.check(nowMs, fixedLimit, step.cost), asked);
        const told = window.admit(nowMs, fixedLimit, step.cost);
        assert.equal(told.admitted, asked.admitted);
        if (told.admitted) {
          assert.equal(told.retryAfterMs, 0);
          continue;
        }
        assert.deepEqual(told, asked);
        if (skip-- > 0) continue;
        if (step.cost > fixedLimit) assert.equal(told.retryAfterMs, Number.POSITIVE_INFINITY);
        else {
          const fitsAtMs = nowMs + told.retryAfterMs;
          assert.equal(window.check(fitsAtMs - TICK_MS, fixedLimit, step.cost).admitted, false);
          assert.equal(window.check(fitsAtMs, fixedLimit, step.cost).admitted, true);
        }
        if (told.resetMs > told.retryAfterMs) assert.equal(window.isIdle(nowMs + told.resetMs - TICK_MS), false);
        assert.equal(window.isIdle(nowMs + told.resetMs), true);
        assert.equal(window.check(nowMs + told.resetMs, fixedLimit, 0).remaining, fixedLimit);
        checked++;
        return;
      }
    }),
    { numRuns },
  );
  assert.ok(checked > numRuns / 4);
  t.diagnostic(`${numRuns} cases, ${checked} refusals followed to their end`);
});

test('a limit that keeps growing cannot outgrow the memory, and the promise holds', () => {
  const window = new SlidingWindow(WINDOW_MS);
  const log = new ExactLog();
  let nowMs = 0;
  let admissions = 0;
  for (let growing = 60; growing <= 60 * 2 ** 12; growing *= 2) {
    const bigEnoughForItsOwnSlot = growing / 60 + 1;
    while (window.admit(nowMs, growing, bigEnoughForItsOwnSlot).admitted) {
      log.add(nowMs, bigEnoughForItsOwnSlot);
      assert.ok(log.units(nowMs, WINDOW_MS) <= growing);
      admissions++;
      nowMs += TICK_MS / 8;
    }
  }
  assert.ok(admissions > 300, `only ${admissions} admissions: the bound on slots was not reached`);
  // Each slot is given back at a moment of its own, so the moments count the slots.
  const left = new Set<number>();
  for (let laterMs = nowMs; !window.isIdle(laterMs); laterMs += TICK_MS / 8)
    left.add(window.check(laterMs, 1e6, 0).remaining);
  assert.equal(left.size, 256);
});

test('a lower limit holds at once, and a cost of 0 passes even then', () => {
  const window = new SlidingWindow(WINDOW_MS);
  assert.equal(window.admit(0, 100, 50).remaining, 50);
  assert.deepEqual(window.admit(10, 20, 1), { admitted: false, remaining: 0, retryAfterMs: 50, resetMs: 50 });
  assert.equal(window.admit(10, 20, 0).admitted, true);
  assert.deepEqual(window.admit(60, 20, 1), { admitted: true, remaining: 19, retryAfterMs: 0, resetMs: 60 });
});

test('nonsense is refused with an error and changes nothing', () => {
  const window = new SlidingWindow(WINDOW_MS);
  for (const bad of [-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY]) {
    assert.throws(() => window.admit(0, 10, bad), RangeError);
    assert.throws(() => window.check(0, 10, bad), RangeError);
  }
  for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) assert.throws(() => window.admit(bad, 10, 1), RangeError);
  for (const bad of [0, -1, Number.NaN, Number.POSITIVE_INFINITY])
    assert.throws(() => new SlidingWindow(bad), RangeError);
  assert.equal(window.admit(0, Number.NaN, 1).admitted, false);
  assert.deepEqual(window.admit(0, 10, 10), { admitted: true, remaining: 0, retryAfterMs: 0, resetMs: 60 });
});
