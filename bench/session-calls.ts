// What is left of Fastify and the token check of @clerk/backend when a call with a session token is authenticated, limited,
// answered from the price cache, logged and written down as usage.
import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { SignJWT } from 'jose';
import type { Benchmark, BenchmarkOptions } from './benchmark.ts';
import { startIora } from './iora-program.ts';
import { priceRequest } from './price-request.ts';
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
  'POST /tools/get_price with a session token of Clerk (RS256, verified with CLERK_JWT_KEY at every call), as the server program answers it, ' +
  'against Fastify with verifyToken of @clerk/backend and one constant JSON text of the same length, and against node:http that answers every ' +
  'request with that text. The three get the same request bytes from one load program over 64 connections, one request under way on each, in turn, ' +
  'and another one begins each round; each turn begins with a warm-up that is not timed. All three are tied to one core and the load program to ' +
  'another. Ratios are those of the medians of answers per second. The usage rows of cost 1 must equal the answers of status 200.';

/** Everything around the check may take three tenths of what the check alone leaves. */
const RATIO_MIN = 0.7;
const RSA_BITS = 2_048;
const PUBLIC_URL = 'https://iora.example';
const FRONTEND_API = 'clerk.iora.example';

export const sessionCalls: Benchmark = {
  name: 'session-calls',
  async run(options) {
    const measured = await compare(options);
    const { rounds, rows, answered, otherAnswers, ...rest } = measured;
    const ratio = ratioOf(rounds, 'iora', 'fastify');
    return {
      method: METHOD,
      postgres: measured.postgres,
      figures: {
        'bare server': describeSide(rounds, 'bare'),
        'Fastify and verifyToken': describeSide(rounds, 'fastify'),
        IORA: describeSide(rounds, 'iora'),
        'ratio to the bare server': ratioOf(rounds, 'iora', 'bare'),
        'ratio by round': ratiosByRound(rounds, 'iora', 'fastify').join(' '),
      },
      verdicts: [
        { what: 'ratio to Fastify', value: ratio, wanted: `>= ${RATIO_MIN}`, ok: ratio >= RATIO_MIN, exact: false },
        { what: 'usage rows', value: rows, wanted: `= ${answered} answers`, ok: rows === answered, exact: true },
        { what: 'answers but 200', value: otherAnswers, wanted: '= 0', ok: otherAnswers === 0, exact: true },
      ],
      samples: { ...rest, rounds },
    };
  },
};

async function compare(options: BenchmarkOptions) {
  await using stack = new AsyncDisposableStack();
  options.note('starting the servers');
  const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: RSA_BITS });
  const jwtKey = publicKey.export({ type: 'spki', format: 'pem' }).toString();
  const iora = await startIora({
    PUBLIC_URL,
    CLERK_PUBLISHABLE_KEY: `pk_test_${Buffer.from(`${FRONTEND_API}$`).toString('base64')}`,
    CLERK_JWT_KEY: jwtKey,
  });
  stack.defer(() => iora.remove());
  const load = startLoad();
  stack.defer(() => load.stop());
  // Before the first call, whose answer remembers them for a minute.
  await iora.liftLimits();
  pin(iora.pid, SERVER_CORE);

  const headers = { authorization: `Bearer ${await sessionToken(privateKey)}` };
  const body = await cachedAnswer(iora.port, () => headers);
  const bare = await startPeer('bare-server.ts', { body });
  stack.defer(() => bare.helper.stop());
  const fastify = await startPeer('peers/fastify-session.ts', { body, jwtKey, authorizedParties: [PUBLIC_URL] });
  stack.defer(() => fastify.helper.stop());

  const durability = await durabilityOf(iora.serviceUrl);
  const postgres = await versionOf(iora.serviceUrl);
  const ask = { request: priceRequest(headers) };
  const rounds = await measureInTurn(
    load,
    {
      bare: { pid: bare.helper.pid, port: bare.port, ask },
      fastify: { pid: fastify.helper.pid, port: fastify.port, ask },
      iora: { pid: iora.pid, port: iora.port, ask },
    },
    options,
  );
  const answers = countAnswers(rounds, 'iora');
  return {
    rounds,
    rows: await countUsageRows(iora),
    answered: answers.ok + CALLS_UNTIL_CACHED,
    otherAnswers: answers.other + countAnswers(rounds, 'fastify').other,
    pinned: canPin,
    durability,
    postgres,
  };
}

/** As Clerk issues them, but good for the whole run. */
function sessionToken(privateKey: KeyObject): Promise<string> {
  return new SignJWT({ azp: PUBLIC_URL, sid: 'sess_bench', v: 2 })
    .setProtectedHeader({ alg: 'RS256', typ: 'JWT', kid: 'ins_bench' })
    .setIssuer(`https://${FRONTEND_API}`)
    .setSubject('user_bench')
    .setIssuedAt()
    .setExpirationTime('2h')
    .sign(privateKey);
}
