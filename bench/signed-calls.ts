// What is left of a bare HTTP server when a call that a service signed is verified, its nonce taken once for all instances, limited,
// answered from the price cache, logged and written down as usage.
import { randomBytes } from 'node:crypto';
import { ownRedis } from '../test/support/redis.ts';
import type { Benchmark, BenchmarkOptions } from './benchmark.ts';
import { startIora } from './iora-program.ts';
import { priceRequest, signedPriceHeaders } from './price-request.ts';
import { canPin, pin, SERVER_CORE } from './processes.ts';
import {
  CALLS_UNTIL_CACHED,
  cachedAnswer,
  countAnswers,
  countUsageRows,
  describeSide,
  durabilityOf,
  measureInTurn,
  ratioOf,
  ratiosByRound,
  startLoad,
  startPeer,
} from './side-by-side.ts';

import { versionOf } from './temporary-postgres.ts';

const METHOD =
  'POST /tools/get_price signed by a service (HMAC-SHA-256, a new nonce for every call), as the server program answers it, against a node:http ' +
  'server that answers the same signed requests with one constant JSON text of the same length. Twice: with the nonces in PostgreSQL, one durable ' +
  'insert a call, and with REDIS_URL, one SET a call. The load program signs every request, 64 connections with one request under way on each; the ' +
  'sides are measured in turn and another one begins each round, each turn after a warm-up that is not timed. Servers are tied to one core, the load ' +
  'program to another, where PostgreSQL and Redis mostly run too. Ratios are those of the medians of answers per second. The usage rows of cost 1 must ' +
  'equal the answers of status 200.';

const SECRET_BYTES = 32;
const KEY_ID = 'bench-1';

export const signedCalls: Benchmark = {
  name: 'signed-calls',
  async run(options) {
    const inPostgres = await compare(options, null);
    const redis = await ownRedis();
    const inRedis = await compare(options, redis.url).finally(() => redis.stop());
    return {
      method: METHOD,
      postgres: inPostgres.postgres,
      figures: {
        'bare server': describeSide(inPostgres.rounds, 'bare'),
        'IORA, nonces in PostgreSQL': describeSide(inPostgres.rounds, 'iora'),
        'ratio, nonces in PostgreSQL': ratioOf(inPostgres.rounds, 'iora', 'bare'),
        'by round, nonces in PostgreSQL': ratiosByRound(inPostgres.rounds, 'iora', 'bare').join(' '),
        'IORA, nonces in Redis': describeSide(inRedis.rounds, 'iora'),
        'ratio, nonces in Redis': ratioOf(inRedis.rounds, 'iora', 'bare'),
        'by round, nonces in Redis': ratiosByRound(inRedis.rounds, 'iora', 'bare').join(' '),
      },
      verdicts: [inPostgres, inRedis].flatMap(({ store, rows, answered, otherAnswers }) => [
        {
          what: `usage rows, ${store}`,
          value: rows,
          wanted: `= ${answered} answers`,
          ok: rows === answered,
          exact: true,
        },
        { what: `answers but 200, ${store}`, value: otherAnswers, wanted: '= 0', ok: otherAnswers === 0, exact: true },
      ]),
      samples: [inPostgres, inRedis],
    };
  },
};

async function compare(options: BenchmarkOptions, redisUrl: string | null) {
  const store = redisUrl === null ? 'nonces in PostgreSQL' : 'nonces in Redis';
  await using stack = new AsyncDisposableStack();
  options.note(`starting the servers, ${store}`);
  const secret = randomBytes(SECRET_BYTES);
  const signer = { keyId: KEY_ID, secret };
  const iora = await startIora({
    SERVICE_SECRETS: `bench:${KEY_ID}:${secret.toString('base64')}`,
    SERVICE_REQUESTS_PER_MINUTE: '1000000000',
    ...(redisUrl === null ? {} : { REDIS_URL: redisUrl }),
  });
  stack.defer(() => iora.remove());
  const load = startLoad();
  stack.defer(() => load.stop());
  pin(iora.pid, SERVER_CORE);
  const body = await cachedAnswer(iora.port, () => signedPriceHeaders(signer));
  const bare = await startPeer('bare-server.ts', { body });
  stack.defer(() => bare.helper.stop());

  const durability = await durabilityOf(iora.serviceUrl);
  const postgres = await versionOf(iora.serviceUrl);
  const ask = { request: priceRequest({}), signing: { keyId: KEY_ID, secretBase64: secret.toString('base64') } };
  const rounds = await measureInTurn(
    load,
    { bare: { pid: bare.helper.pid, port: bare.port, ask }, iora: { pid: iora.pid, port: iora.port, ask } },
    options,
  );
  const answers = countAnswers(rounds, 'iora');
  return {
    store,
    rounds,
    rows: await countUsageRows(iora),
    answered: answers.ok + CALLS_UNTIL_CACHED,
    otherAnswers: answers.other,
    pinned: canPin,
    durability,
    postgres,
  };
}
