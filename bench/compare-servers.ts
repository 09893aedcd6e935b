// The measurement behind hot-path.ts: IORA and a bare server under the same load, in turn, on the same core.
import type { BenchmarkOptions } from './benchmark.ts';
import { startIora } from './iora-program.ts';
import type { LoadOrder, LoadReport } from './load.ts';
import { canPin, cpuSeconds, type Helper, LOAD_CORE, pin, SERVER_CORE, startHelper, watchCores } from './processes.ts';
import { median, rounded } from './statistics.ts';
import { versionOf, withClient } from './temporary-postgres.ts';

const CONNECTIONS = 64;
const FULL = { rounds: 7, warmUpMs: 1_000, measuredMs: 5_000 };
const SHORT = { rounds: 2, warmUpMs: 500, measuredMs: 1_000 };
const MS_PER_SECOND = 1_000;
const US_PER_MS = 1_000;
/** Above what the load program itself waits for late answers, so that its own, clearer error comes first. */
const REPORT_SLACK_MS = 20_000;
const BODY = JSON.stringify({ symbol: 'BTC' });

export type Comparison = Awaited<ReturnType<typeof compareServers>>;

/** Measures both servers in turn. Nothing of it is left afterwards. */
export async function compareServers(logLevel: string, { short, note, signal }: BenchmarkOptions) {
  const size = short ? SHORT : FULL;
  await using stack = new AsyncDisposableStack();
  note(`starting the servers, LOG_LEVEL=${logLevel}`);
  const iora = await startIora({ LOG_LEVEL: logLevel });
  stack.defer(() => iora.remove());
  const load = startHelper('load.ts', LOAD_CORE);
  stack.defer(() => load.stop());
  const bare = startHelper('bare-server.ts', SERVER_CORE);
  stack.defer(() => bare.stop());

  const key = await iora.createKey();
  // Only now, so that PostgreSQL, which the program has started, stays free to run anywhere.
  pin(iora.pid, SERVER_CORE);
  const statuses = new Map<string, number>();
  const body = await cachedAnswer(iora.port, key, statuses);
  const { port: barePort } = await bare.ask<{ port: number }>({ body }, REPORT_SLACK_MS);
  const durability = await durabilityOf(iora.serviceUrl);
  const postgres = await versionOf(iora.serviceUrl);

  const order = { request: requestBytes(key), connections: CONNECTIONS, ...size };
  const measureBare = () => measure(load, bare.pid, { ...order, port: barePort });
  const measureIora = async () => {
    const report = await measure(load, iora.pid, { ...order, port: iora.port });
    for (const [status, count] of Object.entries(report.statuses)) add(statuses, status, count);
    return report;
  };
  const coresUsed = watchCores(iora.postgresPid);
  const rounds: Round[] = [];
  for (let round = 0; round < size.rounds; round += 1) {
    signal.throwIfAborted();
    note(`round ${round + 1} of ${size.rounds}`);
    const bareFirst = round % 2 === 0 ? await measureBare() : undefined;
    const ofIora = await measureIora();
    const ofBare = bareFirst ?? (await measureBare());
    rounds.push({ ratio: rounded(ofIora.answersPerSecond / ofBare.answersPerSecond, 3), bare: ofBare, iora: ofIora });
  }
  const postgresSecondsByCore = coresUsed();
  const rows = await iora.stopAndInspect(countRows);

  const all = [...statuses.values()].reduce((sum, count) => sum + count, 0);
  const answered = statuses.get('200') ?? 0;
  const medianOf = (side: 'bare' | 'iora') => median(rounds.map((round) => round[side].answersPerSecond));
  return {
    logLevel,
    ratio: rounded(medianOf('iora') / medianOf('bare'), 3),
    rows,
    answered,
    otherAnswers: all - answered,
    pinned: canPin,
    durability,
    postgres,
    postgresSecondsByCore,
    rounds,
  };
}

function requestBytes(key: string): string {
  return [
    'POST /tools/get_price HTTP/1.1',
    'host: 127.0.0.1',
    `authorization: Bearer ${key}`,
    'content-type: application/json',
    `content-length: ${BODY.length}`,
    '',
    BODY,
  ].join('\r\n');
}

/** Asks until the answer comes from the cache, and returns its text. */
async function cachedAnswer(port: number, key: string, statuses: Map<string, number>): Promise<string> {
  let text = '';
  // The first call fills the cache for a minute.
  for (let call = 0; call < 2; call += 1) {
    const response = await fetch(`http://127.0.0.1:${port}/tools/get_price`, {
      method: 'POST',
      headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
      body: BODY,
    });
    text = await response.text();
    if (response.status !== 200) throw new Error(`get_price answered ${response.status}: ${text}`);
    add(statuses, '200', 1);
  }
  if (!text.includes('"cache":"hit"')) throw new Error(`the second call was not answered from the cache: ${text}`);
  return text;
}

interface Round {
  readonly ratio: number;
  readonly bare: Measured;
  readonly iora: Measured;
}

type Measured = Awaited<ReturnType<typeof measure>>;

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

/** The settings that make a commit durable, as a connection of the service has them. Throws when one is off. */
async function durabilityOf(serviceUrl: string): Promise<Record<string, string>> {
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

function countRows(superuserUrl: string): Promise<number> {
  return withClient(superuserUrl, async (client) => {
    const { rows } = await client.query<{ rows: string }>('SELECT count(*) AS rows FROM usage_logs WHERE cost = 1');
    return Number(rows[0]?.rows);
  });
}

function add(statuses: Map<string, number>, status: string, count: number): void {
  statuses.set(status, (statuses.get(status) ?? 0) + count);
}
