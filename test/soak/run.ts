import { killLoop } from './kill-loop.ts';

/** `npm run soak [-- --short]`: the long loops that try to break a promise. Ends with exit code 1 when one breaks. */

const ROUNDS = 60;
const ROUNDS_SHORT = 6;

const rounds = process.argv.includes('--short') ? ROUNDS_SHORT : ROUNDS;
const result = await killLoop(rounds, (line) => process.stdout.write(`${line}\n`));
process.stdout.write(`${JSON.stringify(result, null, 2)}\n`);
if (result.broken.length > 0) process.exitCode = 1;
