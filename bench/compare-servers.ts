// The measurement behind hot-path.ts: IORA and a bare server under the same load, in turn, on the same core.
import type { BenchmarkOptions } from './benchmark.ts';
import { startIora } from './iora-program.ts';
import { priceRequest } from './price-request.ts';
import { canPin, pin, SERVER_CORE, watchCores } from './processes.ts';
import {
  CALLS_UNTIL_CACHED,
  cachedAnswer,
  countAnswers,
  countUsageRows,
  durabilityOf,
  measureInTurn,
  ratioOf,
  ratiosByRound,
  startLoad,
  startPeer,
} from './side-by-side.ts';
import { versionOf } from './temporary-postgres.ts';

export type Comparison = Awaited<ReturnType<typeof compareServers>>;

/** Measures both servers in turn. Nothing of it is left afterwards. */
export async function compareServers(logLevel: string, options: BenchmarkOptions) {
  await using stack = new AsyncDisposableStack();
  options.note(`starting the servers, LOG_LEVEL=${logLevel}`);
  const iora = await startIora({ LOG_LEVEL: logLevel });
  stack.defer(() => iora.remove());
  const load = startLoad();
  stack.defer(() => load.stop());

  const key = await iora.createKey();
  // Only now, so that PostgreSQL, which the program has started, stays free to run anywhere.
  pin(iora.pid, SERVER_CORE);
  const headers = { authorization: `Bearer ${key}` };
  const bare = await startPeer('bare-server.ts', { body: await cachedAnswer(iora.port, () => headers) });
  stack.defer(() => bare.helper.stop());
  const durability = await durabilityOf(iora.serviceUrl);
  const postgres = await versionOf(iora.serviceUrl);

  const ask = { request: priceRequest(headers) };
  const coresUsed = watchCores(iora.postgresPid);
  const rounds = await measureInTurn(
    load,
    { bare: { pid: bare.helper.pid, port: bare.port, ask }, iora: { pid: iora.pid, port: iora.port, ask } },
    options,
  );
  const postgresSecondsByCore = coresUsed();
  const answers = countAnswers(rounds, 'iora');
  return {
    logLevel,
    ratio: ratioOf(rounds, 'iora', 'bare'),
    ratiosByRound: ratiosByRound(rounds, 'iora', 'bare'),
    rows: await countUsageRows(iora),
    answered: answers.ok + CALLS_UNTIL_CACHED,
    otherAnswers: answers.other,
    pinned: canPin,
    durability,
    postgres,
    postgresSecondsByCore,
    rounds,
  };
}
