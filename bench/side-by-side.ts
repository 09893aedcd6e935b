// Several servers under the same load, in turn, on the same core, within one run: what the comparing benchmarks share.
import type { BenchmarkOptions } from './benchmark.ts';
import type { IoraProgram } from './iora-program.ts';
import type { LoadOrder, LoadReport } from './load.ts';
import { PRICE_BODY } from './price-request.ts';
import { cpuSeconds, type Helper, LOAD_CORE, SERVER_CORE, startHelper } from './processes.ts';
import { median, rounded } from './statistics.ts';
import { withClient } from './temporary-postgres.ts';

const CONNECTIONS = 64;
const FULL = { rounds: 7, warmUpMs: 1_000, measuredMs: 5_000 };
const SHORT = { rounds: 2, warmUpMs: 500, measuredMs: 1_000 };
const MS_PER_SECOND = 1_000;
const US_PER_MS = 1_000;
/** Above what the load program itself waits for late answers, so that its own, clearer error comes first. */
const REPORT_SLACK_MS = 20_000;

/** A server that runs already, and what it is asked. */
export interface Side {
  readonly pid: number;
  readonly port: number;
  readonly ask: Pick<LoadOrder, 'request' | 'signing'>;
}

export type Measured = Awaited<ReturnType<typeof measure>>;
export type Rounds<Name extends string> = readonly Readonly<Record<Name, Measured>>[];

/** Puts every side under load in turn, and lets another one begin each round. */
export async function measureInTurn<Name extends string>(
  load: Helper,
  sides: Readonly<Record<Name, Side>>,
  { short, note, signal }: BenchmarkOptions,
): Promise<Rounds<Name>> {
  const size = short ? SHORT : FULL;
  const names = Object.keys(sides) as Name[];
  const rounds: Record<Name, Measured>[] = [];
  for (let round = 0; round < size.rounds; round += 1) {
    signal.throwIfAborted();
    note(`round ${round + 1} of ${size.rounds}`);
    const measured: Partial<Record<Name, Measured>> = {};
    for (const offset of names.keys()) {
      const name = names[(round + offset) % names.length] as Name;
      const { pid, port, ask } = sides[name];
      measured[name] = await measure(load, pid, { ...ask, port, connections: CONNECTIONS, ...size });
    }
    rounds.push(measured as Record<Name, Measured>);
  }
  return rounds;
}

/** A program that answers every request alike, started on the servers' core with what it is to answer. */
export async function startPeer(file: string, message: object): Promise<{ helper: Helper; port: number }> {
  const helper = startHelper(file, SERVER_CORE);
  const { port } = await helper.ask<{ port: number }>(message, REPORT_SLACK_MS);
  return { helper, port };
}

/** The program that sends, on its own core. */
export const startLoad = () => startHelper('load.ts', LOAD_CORE);

async function measure(load: Helper, serverPid: number, order: LoadOrder) {
  const cpuBefore = cpuSeconds(serverPid);
  const answer = await load.ask<{ report?: LoadReport; error?: string }>(
    order,
    order.warmUpMs + order.measuredMs + REPORT_SLACK_MS,
  );
  if (answer.report === undefined) throw new Error(`the load program failed: ${answer.error}`);
  const { statuses, answersPerSecond, p50Ms, p99Ms, cpuShare } = answer.report;
  const cpuMs = (cpuSeconds(serverPid) - cpuBefore) * MS_PER_SECOND;
  const answers = Object.values(statuses).reduce((sum, count) => sum + count, 0);
  return {
    answersPerSecond: rounded(answersPerSecond),
    p50Ms,
    p99Ms,
    statuses,
    loadCpuShare: rounded(cpuShare, 2),
    serverCpuShare: rounded(cpuMs / (order.warmUpMs + order.measuredMs), 2),
    serverCpuUsPerAnswer: rounded((cpuMs * US_PER_MS) / answers, 3),
  };
}

/** The median over the rounds of one figure of a side. */
export function medianOf<Name extends string>(
  rounds: Rounds<Name>,
  name: Name,
  figure: Exclude<keyof Measured, 'statuses'> = 'answersPerSecond',
): number {
  return median(rounds.map((round) => round[name][figure]));
}

/** By how much the medians of answers per second of two sides differ. */
export function ratioOf<Name extends string>(rounds: Rounds<Name>, of: Name, to: Name): number {
  return rounded(medianOf(rounds, of) / medianOf(rounds, to), 3);
}

/** That ratio in each round by itself: how far they differ tells how quiet the machine was. */
export function ratiosByRound<Name extends string>(rounds: Rounds<Name>, of: Name, to: Name): number[] {
  return rounds.map((round) => rounded(round[of].answersPerSecond / round[to].answersPerSecond, 3));
}

/** A side in one line. */
export function describeSide<Name extends string>(rounds: Rounds<Name>, name: Name): string {
  const of = (figure: Exclude<keyof Measured, 'statuses'>) => rounded(medianOf(rounds, name, figure));
  return (
    `${of('answersPerSecond')} answers/s, p50 ${of('p50Ms')} ms, p99 ${of('p99Ms')} ms, ` +
    `${of('serverCpuUsPerAnswer')} us of processor time each, ${of('serverCpuShare')} of its core`
  );
}

/** How many answers of a side had status 200, and how many another. */
export function countAnswers<Name extends string>(rounds: Rounds<Name>, name: Name): { ok: number; other: number } {
  let [ok, other] = [0, 0];
  for (const round of rounds) {
    for (const [status, count] of Object.entries(round[name].statuses)) {
      if (status === '200') ok += count;
      else other += count;
    }
  }
  return { ok, other };
}

/** Asks twice, since the first call fills the cache for a minute, and returns the text of the answer from the cache. */
export async function cachedAnswer(port: number, headersOf: () => Readonly<Record<string, string>>): Promise<string> {
  let text = '';
  for (let call = 0; call < CALLS_UNTIL_CACHED; call += 1) {
    const response = await fetch(`http://127.0.0.1:${port}/tools/get_price`, {
      method: 'POST',
      headers: { ...headersOf(), 'content-type': 'application/json' },
      body: PRICE_BODY,
    });
    text = await response.text();
    if (response.status !== 200) throw new Error(`get_price answered ${response.status}: ${text}`);
  }
  if (!text.includes('"cache":"hit"')) throw new Error(`the second call was not answered from the cache: ${text}`);
  return text;
}

export const CALLS_UNTIL_CACHED = 2;

/** The settings that make a commit durable, as a connection of the service has them. Throws when one is off. */
export async function durabilityOf(serviceUrl: string): Promise<Record<string, string>> {
  const names = ['fsync', 'synchronous_commit', 'full_page_writes'];
  return withClient(serviceUrl, async (client) => {
    const { rows } = await client.query<{ name: string; setting: string }>(
      'SELECT name, setting FROM pg_settings WHERE name = ANY ($1)',
      [names],
    );
    const settings = Object.fromEntries(rows.map(({ name, setting }) => [name, setting]));
    const off = names.filter((name) => settings[name] !== 'on');
    if (off.length > 0) throw new Error(`commits are not durable: ${off.join(', ')} is not on`);
    return settings;
  });
}

/** Stops the program and counts the usage rows that its database holds. */
export function countUsageRows(iora: IoraProgram): Promise<number> {
  return iora.stopAndInspect((superuserUrl) =>
    withClient(superuserUrl, async (client) => {
      const { rows } = await client.query<{ rows: string }>('SELECT count(*) AS rows FROM usage_logs WHERE cost = 1');
      return Number(rows[0]?.rows);
    }),
  );
}
