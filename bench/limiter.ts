// What a rate-limit decision costs, beside the whole decision on a call (minute and month of an owner and of a key).

import { createAdmission } from '../src/features/limits/admission.ts';
import { SlidingWindow } from '../src/lib/sliding-window.ts';
import type { Benchmark } from './benchmark.ts';
import { keyPrincipal } from './key-principal.ts';
import { median, rounded } from './statistics.ts';

const METHOD =
  'Nanoseconds per call in one process, the median of the rounds after one that is not counted. The clock is a counter of our own that ' +
  'moves on by a fixed step per call, so the window is always full of slots and slots leave it all the time. "admitted": a limit never met; ' +
  '"refused": a limit of 1,000 met all the time; "many subjects": 10,000 windows in turn; "decision": createAdmission().admit for a key ' +
  'with four limits (minute and month of the owner, minute and month of the key), states for the answer included.';

const WINDOW_MS = 60_000;
const SUBJECTS = 10_000;
const NS_PER_MS = 1_000_000;
/** Advance of the clock per call: a full window every 600,000 calls. */
const STEP_MS = 0.1;

export const limiter: Benchmark = {
  name: 'limiter',
  async run({ short }) {
    const rounds = short ? 3 : 15;
    const calls = short ? 200_000 : 2_000_000;
    const cases = [
      { name: 'admitted', call: oneWindow(Number.MAX_SAFE_INTEGER) },
      { name: 'refused', call: oneWindow(1_000) },
      { name: 'many subjects', call: manyWindows() },
      { name: 'decision', call: await decision() },
    ];
    const samples = cases.map(({ name, call }) => {
      const nsPerCall: number[] = [];
      for (let round = 0; round <= rounds; round += 1) {
        const startedAt = performance.now();
        for (let i = 0; i < calls; i += 1) call();
        if (round > 0) nsPerCall.push(rounded(((performance.now() - startedAt) / calls) * NS_PER_MS));
      }
      return { name, nsPerCall };
    });
    return {
      method: METHOD,
      postgres: null,
      figures: Object.fromEntries(samples.map(({ name, nsPerCall }) => [`${name}, ns`, median(nsPerCall)])),
      verdicts: [],
      samples,
    };
  },
};

function oneWindow(limit: number): () => void {
  const window = new SlidingWindow(WINDOW_MS);
  let now = 0;
  return () => {
    now += STEP_MS;
    window.admit(now, limit, 1);
  };
}

function manyWindows(): () => void {
  const windows = Array.from({ length: SUBJECTS }, () => new SlidingWindow(WINDOW_MS));
  let now = 0;
  let next = 0;
  return () => {
    now += STEP_MS;
    next = (next + 1) % SUBJECTS;
    windows[next]?.admit(now, Number.MAX_SAFE_INTEGER, 1);
  };
}

async function decision(): Promise<() => void> {
  const wallClockMs = Date.now();
  let now = 0;
  const admission = createAdmission({
    monotonicMs: () => now,
    wallClockMs: () => wallClockMs,
    unmeteredPerWindowMax: 600,
    servicePerWindowMax: 600,
    usedSince: () => Promise.resolve(0),
  });
  const principal = keyPrincipal();
  // Both quotas are asked for once.
  await admission.states(principal);
  return () => {
    now += STEP_MS;
    void admission.admit(principal, 1);
  };
}
