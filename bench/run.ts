// `npm run bench`: runs the benchmarks, prints what they found and keeps it below bench/results/. With --short the rounds
// are small and nothing is kept: a check that they work, for CI. Exit code 1 when a figure is not what is wanted; in a
// short run only where it must hold exactly.
import { parseArgs } from 'node:util';
import { type Benchmark, type Outcome, store } from './benchmark.ts';
import { hotPath } from './hot-path.ts';
import { keyLookup } from './key-lookup.ts';
import { limiter } from './limiter.ts';
import { sessionCalls } from './session-calls.ts';
import { signedCalls } from './signed-calls.ts';
import { usageWriter } from './usage-writer.ts';

const benchmarks: readonly Benchmark[] = [limiter, usageWriter, keyLookup, hotPath, sessionCalls, signedCalls];

const print = (line = '') => void process.stdout.write(`${line}\n`);

/** Ends the benchmark that runs, between two of its rounds, and clears away what it started. */
function stopOnSignal(): AbortSignal {
  const stopped = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.once(name, () => stopped.abort(new Error(`stopped by ${name}`)));
  }
  return stopped.signal;
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: { short: { type: 'boolean', default: false }, only: { type: 'string', multiple: true } },
  });
  const unknown = values.only?.find((name) => !benchmarks.some((benchmark) => benchmark.name === name));
  if (unknown !== undefined) {
    print(`There is no benchmark "${unknown}"; there are ${benchmarks.map(({ name }) => name).join(', ')}.`);
    return 2;
  }
  const chosen = benchmarks.filter(({ name }) => values.only?.includes(name) ?? true);
  const signal = stopOnSignal();
  let missed = 0;
  for (const benchmark of chosen) {
    print(`${benchmark.name}${values.short ? ' (short)' : ''}`);
    const outcome = await benchmark.run({ short: values.short, note: (line) => print(`  ... ${line}`), signal });
    printOutcome(outcome);
    if (!values.short) print(`  kept in ${await store(benchmark.name, outcome)}`);
    print();
    missed += outcome.verdicts.filter(({ ok, exact }) => !ok && (exact || !values.short)).length;
  }
  if (missed > 0) print(`${missed} of the figures are not what is wanted.`);
  return missed > 0 ? 1 : 0;
}

function printOutcome({ figures, verdicts }: Outcome): void {
  const rows = [
    ...Object.entries(figures).map(([what, value]) => [what, String(value)] as const),
    ...verdicts.map(
      ({ what, value, wanted, ok }) => [what, `${value}   wanted ${wanted}: ${ok ? 'yes' : 'NO'}`] as const,
    ),
  ];
  const width = Math.max(...rows.map(([what]) => what.length));
  for (const [what, value] of rows) print(`  ${what.padEnd(width)}  ${value}`);
}

process.exitCode = await main();
