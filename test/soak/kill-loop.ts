import { randomInt } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { attachEmbeddedPostgres } from '../../src/platform/embedded-postgres.ts';
import { withClient } from '../support/postgres.ts';
import { type ServerProcess, startServerProcess } from '../support/server-process.ts';
import { issueToken } from '../support/token.ts';

/**
 * Keys are created and revoked over HTTP while the server, and in every second round its database too, is killed with
 * SIGKILL at a random moment. Whatever was answered has to hold afterwards.
 */

export interface KillLoopResult {
  readonly rounds: number;
  readonly databaseKills: number;
  readonly created: number;
  readonly revoked: number;
  /** Requests whose answer never came; either outcome is allowed for them. */
  readonly unanswered: number;
  /** Answered keys that did not work, answered revocations that did not hold, unexpected refusals: must be empty. */
  readonly broken: readonly string[];
  readonly restartMsMax: number;
}

/** Requests under way at once: enough that a kill meets several in every stage. */
const WORKERS = 6;
/** The kill comes this long after the round's first request. */
const KILL_AFTER_MS = { min: 20, max: 600 };
const REQUEST_TIMEOUT_MS = 5_000;
/** Live keys kept at most, below the owner's maximum of 500. */
const LIVE_KEYS_MAX = 300;
const PERSON = 'soak@example.com';

interface Key {
  readonly id: string;
  readonly key: string;
  /** `unknown`: a revocation was sent and never answered. */
  state: 'live' | 'revoked' | 'unknown';
}

export async function killLoop(rounds: number, say: (line: string) => void): Promise<KillLoopResult> {
  const dataDir = await mkdtemp(join(tmpdir(), 'iora-kill-'));
  // One owner asks here for far more than anybody would in a minute.
  const settings = { IORA_DATA_DIR: dataDir, LOG_LEVEL: 'warn', UNMETERED_PER_MINUTE: '1000000' };
  const keys: Key[] = [];
  const counts = { created: 0, revoked: 0, unanswered: 0, databaseKills: 0, restartMsMax: 0 };
  const broken: string[] = [];
  let server = await withRaisedMaximum(settings);
  try {
    for (let round = 1; round <= rounds; round += 1) {
      const killDatabase = round % 2 === 0;
      const postmasterPid = readPostmasterPid(dataDir);
      const session = await issueToken(dataDir, { email: PERSON });
      const stop = new AbortController();
      const touched = new Set<Key>();
      const workers = Array.from({ length: WORKERS }, () =>
        // A worker that ends early must not end the loop before its server is stopped.
        work(server.url, session, keys, touched, counts, stop.signal).catch((error: unknown) => {
          broken.push(`round ${round}: ${error instanceof Error ? error.message : String(error)}`);
        }),
      );
      await pause(randomInt(KILL_AFTER_MS.min, KILL_AFTER_MS.max));
      const gone = server.stop('SIGKILL');
      if (killDatabase) {
        process.kill(postmasterPid, 'SIGKILL');
        counts.databaseKills += 1;
      }
      await gone;
      stop.abort();
      await Promise.all(workers);
      server = await startServerProcess(settings);
      counts.restartMsMax = Math.max(counts.restartMsMax, Math.round(server.startedInMs));
      broken.push(...(await check(server.url, [...touched])).map((line) => `round ${round}: ${line}`));
      say(
        `round ${round}/${rounds}: ${killDatabase ? 'server and database' : 'server'} killed, back after ${Math.round(server.startedInMs)} ms, ${touched.size} keys of the round and ${broken.length} faults`,
      );
    }
    broken.push(...(await check(server.url, keys)).map((line) => `at the end: ${line}`));
    return { rounds, ...counts, broken };
  } finally {
    await server.stop();
    await rm(dataDir, { recursive: true, force: true });
  }
}

/** Creates and revokes until told to stop or until the server is gone. Throws Error for an answer that is neither. */
async function work(
  url: string,
  session: string,
  keys: Key[],
  touched: Set<Key>,
  counts: { created: number; revoked: number; unanswered: number },
  stop: AbortSignal,
): Promise<void> {
  while (!stop.aborted) {
    const live = keys.filter((key) => key.state === 'live');
    const victim =
      live.length >= LIVE_KEYS_MAX || (live.length > 0 && randomInt(5) < 2) ? live[randomInt(live.length)] : undefined;
    if (victim !== undefined) {
      // Until the answer is there nobody can know; no other worker may pick it either.
      victim.state = 'unknown';
      touched.add(victim);
    }
    const answer =
      victim === undefined
        ? await send(url, session, 'POST', '/user/api-keys', { name: 'soak' })
        : await send(url, session, 'DELETE', `/user/api-keys/${victim.id}`);
    if (answer === undefined) {
      counts.unanswered += 1;
      return;
    }
    if (victim === undefined && answer.status === 201) {
      const { id, key } = answer.body as { id: string; key: string };
      const made: Key = { id, key, state: 'live' };
      keys.push(made);
      touched.add(made);
      counts.created += 1;
    } else if (victim !== undefined && answer.status === 200) {
      victim.state = 'revoked';
      counts.revoked += 1;
    } else if (answer.status < 500) {
      throw new Error(`unexpected answer ${answer.status}: ${JSON.stringify(answer.body)}`);
    }
  }
}

/** What does not hold: answered keys that are refused, answered revocations that are not. */
async function check(url: string, keys: readonly Key[]): Promise<string[]> {
  const wrong: string[] = [];
  for (const key of keys) {
    const answer = await send(url, key.key, 'GET', '/user/api-keys/current');
    const works = answer?.status === 200;
    const refused = answer?.status === 401;
    if (key.state === 'unknown') {
      // Either is right, but from here on it has to stay so.
      if (works) key.state = 'live';
      else if (refused) key.state = 'revoked';
      else wrong.push(`key ${key.id} with an unanswered revocation got ${answer?.status ?? 'no answer'}`);
    } else if (key.state === 'live' ? !works : !refused) {
      wrong.push(`${key.state} key ${key.id} got ${answer?.status ?? 'no answer'}`);
    }
  }
  return wrong;
}

async function send(
  url: string,
  credential: string,
  method: string,
  path: string,
  body?: unknown,
): Promise<{ status: number; body: unknown } | undefined> {
  try {
    const response = await fetch(`${url}${path}`, {
      method,
      signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
      headers: {
        authorization: `Bearer ${credential}`,
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    return { status: response.status, body: await response.json() };
  } catch {
    return undefined;
  }
}

type Settings = Readonly<Record<'IORA_DATA_DIR' | 'LOG_LEVEL' | 'UNMETERED_PER_MINUTE', string>>;

/** The free tier's five keys would end the loop at once. The server is restarted, for it remembers the old maximum. */
async function withRaisedMaximum(settings: Settings): Promise<ServerProcess> {
  const dataDir = settings.IORA_DATA_DIR;
  const server = await startServerProcess(settings);
  const known = await send(server.url, await issueToken(dataDir, { email: PERSON }), 'GET', '/user/api-keys');
  if (known?.status !== 200) throw new Error(`the session was not accepted: ${known?.status ?? 'no answer'}`);
  const database = await attachEmbeddedPostgres({ dataDir });
  try {
    await withClient(database.url('postgres'), (client) => client.query('UPDATE users SET max_api_keys = 500'));
  } finally {
    await database.stop();
  }
  await server.stop();
  return startServerProcess(settings);
}

function readPostmasterPid(dataDir: string): number {
  const { postmasterPid } = JSON.parse(readFileSync(join(dataDir, 'postgres.lock'), 'utf8')) as {
    postmasterPid: number;
  };
  if (!Number.isInteger(postmasterPid)) throw new Error('the lock file names no postmaster');
  return postmasterPid;
}
