import { quantile, rounded } from '../../bench/statistics.ts';
import { type TestCluster, testCluster } from '../support/postgres.ts';
import { testRedis, withoutRedis } from '../support/redis.ts';
import { startInstances } from '../support/revocation-instances.ts';
import { type RevocationRun, revokeAfterKill, revokeUnderLoad, revokeUnheard } from '../support/revocation-run.ts';

/**
 * Three real server processes on one PostgreSQL, without and with Redis, all of them believing what they remember for a minute
 * (KEY_CACHE_TTL=60), so that only the news of a revocation ends a key in time.
 *
 * Under load: per round a key is made on a server chosen at random and called in six loops, two a server, until each has
 * answered with it several times and so remembers it; then it is revoked on a server chosen at random. A call counts as a violation
 * when it was sent after that answer had arrived, by the one clock of this process, and was admitted; each server gets ten such
 * calls. A second key is called on all servers all the time and must never be refused.
 *
 * Unheard: the LISTEN connection of one server is led through a proxy that goes silent or cuts it. Dead: one server is killed
 * with SIGKILL.
 */

export interface RevocationLoopResult {
  readonly withoutRedis: Figures;
  readonly withRedis: Figures | string;
  /** What does not hold: must be empty. */
  readonly broken: readonly string[];
}

interface Figures {
  readonly revocations: number;
  readonly calls: number;
  readonly admittedAfterAnswer: number;
  readonly notEverywhere: number;
  readonly otherRefused: number;
  /** As the answers say it: from commit until all three had acknowledged. */
  readonly ms: Distribution;
  /** From sending the revocation until a server's first refusal was received. */
  readonly refusedAfterMs: Distribution;
  /** With LISTEN of one server silent, and cut: the answer, and when that server refused the key, counted from the answer. */
  readonly silent: string;
  readonly cut: string;
  /** One server killed: the answer, and when it was not counted any more, counted from the kill. */
  readonly killed: string;
}

interface Distribution {
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

/** What is promised of an instance that hears nothing. */
const UNHEARD_MAX_MS = 10_000;
/** The bound of the heartbeat, and what one more revocation takes to see it. */
const FORGOTTEN_MAX_MS = 13_000;

export async function revocationLoop(rounds: number, say: (line: string) => void): Promise<RevocationLoopResult> {
  const broken: string[] = [];
  const cluster = await testCluster();
  try {
    const without = await measure(cluster, rounds, undefined, broken);
    const missing = await withoutRedis();
    if (missing !== false) {
      broken.push(missing);
      return { withoutRedis: without, withRedis: missing, broken };
    }
    const redis = await testRedis();
    try {
      const withRedis = await measure(cluster, rounds, redis.url, broken);
      for (const line of tableOf({ 'without Redis': without, 'with Redis': withRedis })) say(line);
      return { withoutRedis: without, withRedis, broken };
    } finally {
      await redis.stop();
    }
  } finally {
    await cluster.stop();
  }
}

async function measure(
  cluster: TestCluster,
  rounds: number,
  redisUrl: string | undefined,
  broken: string[],
): Promise<Figures> {
  const name = redisUrl === undefined ? 'without Redis' : 'with Redis';
  const expect = (holds: boolean, what: string) => {
    if (!holds) broken.push(`${name}: ${what}`);
  };
  const instances = await startInstances(await cluster.database(), redisUrl);
  try {
    const run = await revokeUnderLoad(instances, rounds);
    expect(run.admittedAfterAnswer === 0, `${run.admittedAfterAnswer} calls were admitted after the answer`);
    expect(run.notEverywhere === 0, `${run.notEverywhere} revocations were not acknowledged by all`);
    expect(run.otherRefused === 0, `${run.otherRefused} calls with another key were refused`);
    const told = redisUrl === undefined ? 2 : 3;
    const unheard: string[] = [];
    for (const mode of ['blackhole', 'reset'] as const) {
      const { answer, refusedAfterMs } = await revokeUnheard(instances, mode);
      expect(answer.effectiveOn === told && answer.of === 3, `${mode}: ${answer.effectiveOn} of ${answer.of}`);
      expect(answer.ms + refusedAfterMs < UNHEARD_MAX_MS, `${mode}: admitted for ${refusedAfterMs} ms`);
      unheard.push(inWords(answer, refusedAfterMs));
    }
    const { answer, forgottenAfterMs } = await revokeAfterKill(instances);
    expect(answer.effectiveOn === 2, `killed: ${answer.effectiveOn} of ${answer.of}`);
    expect(forgottenAfterMs < FORGOTTEN_MAX_MS, `killed: counted for ${forgottenAfterMs} ms`);
    const [silent = '', cut = ''] = unheard;
    return { ...figuresOf(run), silent, cut, killed: inWords(answer, forgottenAfterMs) };
  } finally {
    await instances.stop();
  }
}

function figuresOf(run: RevocationRun): Omit<Figures, 'silent' | 'cut' | 'killed'> {
  const { rounds, calls, admittedAfterAnswer, notEverywhere, otherRefused } = run;
  const told = { revocations: rounds, calls, admittedAfterAnswer, notEverywhere, otherRefused };
  return { ...told, ms: distribution(run.ms), refusedAfterMs: distribution(run.refusedAfterMs) };
}

function distribution(samples: readonly number[]): Distribution {
  const at = (share: number) => rounded(quantile(samples, share));
  return { p50: at(0.5), p99: at(0.99), max: at(1) };
}

function inWords({ effectiveOn, of, ms }: { effectiveOn: number; of: number; ms: number }, afterMs: number): string {
  return `${effectiveOn} of ${of} in ${ms} ms, then ${Math.round(afterMs)} ms`;
}

function tableOf(columns: Readonly<Record<string, Figures>>): string[] {
  const all = Object.values(columns);
  const row = (name: string, cell: (figures: Figures) => string) =>
    `| ${name} | ${all.map((figures) => cell(figures)).join(' | ')} |`;
  const spread = ({ p50, p99, max }: Distribution) => `${p50} / ${p99} / ${max}`;
  return [
    `| | ${Object.keys(columns).join(' | ')} |`,
    `|---|${'---|'.repeat(all.length)}`,
    row('revocations', ({ revocations }) => String(revocations)),
    row('calls with revoked keys', ({ calls }) => String(calls)),
    row('admitted after the answer', ({ admittedAfterAnswer }) => String(admittedAfterAnswer)),
    row('not acknowledged by all', ({ notEverywhere }) => String(notEverywhere)),
    row('commit to acknowledged by all, p50 / p99 / max ms', ({ ms }) => spread(ms)),
    row('sent to first refusal, p50 / p99 / max ms', ({ refusedAfterMs }) => spread(refusedAfterMs)),
    row('LISTEN of one silent', ({ silent }) => silent),
    row('LISTEN of one cut', ({ cut }) => cut),
    row('one killed', ({ killed }) => killed),
  ];
}
