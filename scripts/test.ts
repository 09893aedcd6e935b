import { globSync } from 'node:fs';
import { run } from 'node:test';
import { spec } from 'node:test/reporters';

/**
 * `npm test [-- FILE ...]`: every test file in a process of its own. With IORA_TEST_REQUIRE=all a skipped test fails
 * the run, so that nothing is green for the wrong reason.
 */

/** Files at once: each may run a PostgreSQL of its own, and two cores carry two of them well. */
const FILES_AT_ONCE = 2;
/** One test file may take this long; the slowest needs about a quarter of it on two cores. */
const FILE_TIMEOUT_MS = 600_000;

const named = process.argv.slice(2);
const files =
  named.length > 0 ? named : globSync(['src/**/*.test.ts', 'test/**/*.test.ts', 'bench/**/*.test.ts']).sort();
if (files.length === 0) throw new Error('no test files found');

const skipped: string[] = [];
let failed = 0;
let passed = 0;

const stream = run({ files, concurrency: FILES_AT_ONCE, timeout: FILE_TIMEOUT_MS });
stream.on('test:fail', () => {
  failed += 1;
});
stream.on('test:pass', (data) => {
  if (data.skip !== undefined) skipped.push(`${data.name}: ${data.skip === true ? 'no reason given' : data.skip}`);
  else passed += 1;
});
stream.on('end', () => {
  const required = process.env['IORA_TEST_REQUIRE'] === 'all';
  process.stdout.write(`\n${files.length} files, ${passed} passed, ${failed} failed, ${skipped.length} skipped\n`);
  for (const line of skipped) process.stdout.write(`skipped: ${line}\n`);
  if (failed > 0 || passed === 0 || (required && skipped.length > 0)) process.exitCode = 1;
});
stream.compose(spec).pipe(process.stdout);
