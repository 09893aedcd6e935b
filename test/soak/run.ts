import { randomInt } from 'node:crypto';
import { parseArgs } from 'node:util';
import { killLoop } from './kill-loop.ts';
import { propertyLoop } from './property.ts';
import { revocationLoop } from './revocation.ts';

/**
 * `npm run soak [-- --short] [--only NAME] [--seed NUMBER]`: the long loops that try to break a promise. Ends with exit
 * code 1 when one breaks. The seed repeats the cases of a property run.
 */

const ROUNDS = 60;
const ROUNDS_SHORT = 6;
const REVOCATIONS = 200;
const REVOCATIONS_SHORT = 20;
const CASES_AN_OPERATION = 10_000;
const CASES_AN_OPERATION_SHORT = 1_000;
/** fast-check takes seeds of 32 bits. */
const SEEDS = 2 ** 31;

interface Settings {
  readonly short: boolean;
  readonly seed: number;
}

const loops: Readonly<Record<string, (settings: Settings) => Promise<{ readonly broken: readonly string[] }>>> = {
  property: ({ short, seed }) => propertyLoop(short ? CASES_AN_OPERATION_SHORT : CASES_AN_OPERATION, seed, say),
  revocation: ({ short }) => revocationLoop(short ? REVOCATIONS_SHORT : REVOCATIONS, say),
  kill: ({ short }) => killLoop(short ? ROUNDS_SHORT : ROUNDS, say),
};

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

const { values } = parseArgs({
  options: { short: { type: 'boolean', default: false }, only: { type: 'string' }, seed: { type: 'string' } },
});
const seed = values.seed === undefined ? randomInt(SEEDS) : Number(values.seed);
const chosen = Object.entries(loops).filter(([name]) => values.only === undefined || values.only === name);
if (chosen.length === 0) throw new Error(`--only names one of ${Object.keys(loops).join(', ')}`);
if (!Number.isSafeInteger(seed)) throw new Error('--seed is a whole number');

for (const [name, loop] of chosen) {
  say(`${name}:`);
  const result = await loop({ short: values.short, seed });
  say(JSON.stringify(result, null, 2));
  if (result.broken.length > 0) process.exitCode = 1;
}
