// What every benchmark hands over, and how it is kept: figures are worth something only beside the machine, the commit
// and the method they come from.
import { execFileSync } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { availableParallelism, cpus, loadavg, release, totalmem } from 'node:os';
import { fileURLToPath } from 'node:url';

export interface Benchmark {
  readonly name: string;
  run(options: BenchmarkOptions): Promise<Outcome>;
}

export interface BenchmarkOptions {
  /** Fewer and smaller rounds: shows that it works; the figures say little. */
  readonly short: boolean;
  /** Tells a person who waits what is being done. */
  readonly note: (line: string) => void;
  /** Aborted when somebody stops the program; looked at between rounds, so that everything is cleared away. */
  readonly signal: AbortSignal;
}

export interface Outcome {
  /** What was done to what, so that somebody else could do it again. */
  readonly method: string;
  /** Version of the PostgreSQL that took part, else null. */
  readonly postgres: string | null;
  readonly verdicts: readonly Verdict[];
  /** Printed beside the verdicts: name and value of each figure. */
  readonly figures: Readonly<Record<string, string | number>>;
  /** Every measured value. */
  readonly samples: unknown;
}

/** A figure that something is wanted of. */
export interface Verdict {
  readonly what: string;
  readonly value: number;
  readonly wanted: string;
  readonly ok: boolean;
  /** Whether missing it fails a short run too: for what must hold exactly, not for what a short run measures badly. */
  readonly exact: boolean;
}

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const RESULTS = fileURLToPath(new URL('results/', import.meta.url));

/** Writes `results/<name>.json` and returns its path. */
export async function store(name: string, outcome: Outcome): Promise<string> {
  const { method, postgres, ...measured } = outcome;
  const file = `${RESULTS}${name}.json`;
  const result = { name, date: new Date().toISOString(), ...commit(), machine: machine(postgres), method, ...measured };
  await mkdir(RESULTS, { recursive: true });
  await writeFile(file, `${onOneLine(JSON.stringify(result, null, 1))}\n`);
  return file;
}

/** Puts lists of plain values, such as samples, on one line each. */
function onOneLine(json: string): string {
  return json.replace(/\[[^[\]{}]*\]/g, (list) => list.replace(/\s+/g, ' '));
}

function machine(postgres: string | null) {
  return {
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: availableParallelism(),
    memoryBytes: totalmem(),
    system: `${process.platform} ${release()} ${process.arch}`,
    node: process.version,
    postgres,
    /** Of the minutes before: what else the machine had to do. */
    loadAverage: loadavg(),
  };
}

/** The commit measured; `dirty` when the tree differs from it in anything but stored results. Null outside a checkout. */
function commit(): { commit: string | null; dirty: boolean | null } {
  try {
    const git = (...args: string[]) => execFileSync('git', args, { cwd: ROOT, encoding: 'utf8' }).trim();
    return {
      commit: git('rev-parse', 'HEAD'),
      dirty: git('status', '--porcelain', '--', '.', ':!bench/results') !== '',
    };
  } catch {
    return { commit: null, dirty: null };
  }
}
