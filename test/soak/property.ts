import { monitorEventLoopDelay } from 'node:perf_hooks';
import { checkOperations } from '../support/property-run.ts';
import { tableOf } from '../support/property-tally.ts';

/** The long form of test/property.test.ts: new cases every time, unless a seed names them. */

export interface PropertyLoopResult {
  readonly seed: number;
  readonly casesAnOperation: number;
  readonly seconds: number;
  /** Pairs of answers to the same input that were held against each other. */
  readonly comparisons: number;
  /** Longest time the process did nothing but one thing. A case that takes its time delays everybody else's. */
  readonly stalledMsMax: number;
  /** What does not hold: must be empty. */
  readonly broken: readonly string[];
}

/** Sends so many cases into every operation and says what they came to, as a table. */
export async function propertyLoop(
  casesAnOperation: number,
  seed: number,
  say: (line: string) => void,
): Promise<PropertyLoopResult> {
  const startedAt = performance.now();
  const delays = monitorEventLoopDelay();
  delays.enable();
  say(`seed ${seed}`);
  const { tallies, broken } = await checkOperations(casesAnOperation, seed, say);
  for (const line of tableOf(tallies)) say(line);
  const comparisons = [...tallies.values()].reduce((sum, tally) => sum + tally.comparisons, 0);
  return {
    seed,
    casesAnOperation,
    seconds: Math.round((performance.now() - startedAt) / SECOND_MS),
    comparisons,
    stalledMsMax: Math.round(delays.max / MS_NS),
    broken,
  };
}

const SECOND_MS = 1_000;
const MS_NS = 1_000_000;
