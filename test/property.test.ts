// Every operation through every transport, with inputs derived from its own schema and spoiled in many ways: the declared
// answer or a declared refusal, the same over all of them, and nothing changed or charged by what was refused. The long
// form, with as many cases as the promise names, is `npm run soak -- --only property`.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkOperations } from './support/property-run.ts';
import { tableOf } from './support/property-tally.ts';

/** Cases an operation: what fits into half a minute on two cores. */
const CASES = 600;
/** The same cases every time; the long form draws new ones. */
const SEED = 7145;

test(`${CASES} cases an operation get the declared answer or a declared refusal, the same over every transport`, async (t) => {
  const { tallies, broken } = await checkOperations(CASES, SEED, () => undefined);
  for (const line of tableOf(tallies)) t.diagnostic(line);
  assert.equal(broken.join('\n'), '');
});
