import { checkOperations } from '../support/property-run.ts';
import { tableOf } from '../support/property-tally.ts';

/** The long form of test/property.test.ts: new cases every time, unless a seed names them. */

export interface PropertyLoopResult {
  readonly seed: number;
  readonly casesAnOperation: number;
  readonly seconds: number;
  /** Pairs of answers to the same input that were held against each other. */
  readonly comparisons: number;
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
  say(`seed ${seed}`);
  const { tallies, broken } = await checkOperations(casesAnOperation, seed, say);
  for (const line of tableOf(tallies)) say(line);
  const comparisons = [...tallies.values()].reduce((sum, tally) => sum + tally.comparisons, 0);
  return { seed, casesAnOperation, seconds: Math.round((performance.now() - startedAt) / 1_000), comparisons, broken };
}
