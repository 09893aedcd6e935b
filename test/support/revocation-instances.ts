// Three real server processes on one PostgreSQL, and what a caller sees of them: the stage of the revocation tests.
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestDatabase } from './postgres.ts';
import { type ServerProcess, startServerProcess } from './server-process.ts';
import { startTcpProxy, type TcpProxy, throughProxy } from './tcp-proxy.ts';
import { issueToken } from './token.ts';

export interface Instances {
  readonly servers: readonly ServerProcess[];
  /** Stands between the last server and its LISTEN; its other connections go straight. */
  readonly listenOfLast: TcpProxy;
  /** A session of the person who owns every key here. */
  readonly session: string;
  stop(): Promise<void>;
}

const INSTANCES = 3;
/** What is remembered is believed for a minute, so that neither chance nor time explains a refusal. */
const KEY_CACHE_TTL = '60';

export async function startInstances(database: TestDatabase, redisUrl: string | undefined): Promise<Instances> {
  const dataDir = await mkdtemp(join(tmpdir(), 'iora-revocation-'));
  const { hostname, port } = new URL(database.apiUrl);
  const listenOfLast = await startTcpProxy({ host: hostname, port: Number(port) });
  // Made here first, so that the three do not all make it at once.
  const session = await issueToken(dataDir, { email: 'owner@example.com' });
  const secret = () => `1:${randomBytes(32).toString('base64')}`;
  const settings = {
    DATABASE_URL: database.apiUrl,
    MIGRATE_ON_START: 'false',
    IORA_MODE: 'development',
    IORA_DATA_DIR: dataDir,
    KEY_PEPPER: secret(),
    DATA_KEYS: secret(),
    KEY_CACHE_TTL,
    UNMETERED_PER_MINUTE: '1000000000',
    LOG_LEVEL: 'warn',
    ...(redisUrl === undefined ? {} : { REDIS_URL: redisUrl, REDIS_PREFIX: `${database.name}:` }),
  };
  const started = await Promise.allSettled(
    Array.from({ length: INSTANCES }, (_, index) => {
      const isLast = index === INSTANCES - 1;
      const own = isLast ? { DATABASE_DIRECT_URL: throughProxy(database.apiUrl, listenOfLast) } : {};
      return startServerProcess({ ...settings, ...own });
    }),
  );
  const servers = started.flatMap((start) => (start.status === 'fulfilled' ? [start.value] : []));

  async function stop(): Promise<void> {
    listenOfLast.set('reset');
    await Promise.all(servers.map((server) => server.stop()));
    await listenOfLast.close();
    await rm(dataDir, { recursive: true, force: true });
  }
  const failed = started.find((start) => start.status === 'rejected');
  if (failed !== undefined) {
    await stop();
    throw failed.reason;
  }
  return { servers, listenOfLast, session, stop };
}

export interface Answer {
  readonly status: number;
  readonly body: Record<string, unknown>;
}

const REQUEST_TIMEOUT_MS = 10_000;

export async function ask(
  server: ServerProcess,
  credential: string,
  method: string,
  path: string,
  body?: unknown,
): Promise<Answer> {
  const response = await fetch(`${server.url}${path}`, {
    method,
    signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
    headers: {
      authorization: `Bearer ${credential}`,
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  return { status: response.status, body: (await response.json()) as Record<string, unknown> };
}

/** Whether that server admits the key. Throws for an answer that is neither yes nor the refusal of an unknown key. */
export async function isAdmitted(server: ServerProcess, key: string): Promise<boolean> {
  const { status } = await ask(server, key, 'GET', '/user/api-keys/current');
  if (status !== 200 && status !== 401) throw new Error(`the key got ${status}`);
  return status === 200;
}

export async function createKey(
  { session }: Instances,
  server: ServerProcess,
): Promise<{ readonly id: string; readonly key: string }> {
  const { status, body } = await ask(server, session, 'POST', '/user/api-keys', { name: 'a key' });
  const { id, key } = body;
  if (status !== 201 || typeof id !== 'string' || typeof key !== 'string')
    throw new Error(`no key was made: ${status}`);
  return { id, key };
}

export interface Revoked {
  readonly effectiveOn: number;
  readonly of: number;
  readonly ms: number;
}

export async function revokeKey({ session }: Instances, server: ServerProcess, id: string): Promise<Revoked> {
  const { status, body } = await ask(server, session, 'DELETE', `/user/api-keys/${id}`);
  const { effectiveOn, of, ms } = body;
  if (status !== 200 || typeof effectiveOn !== 'number' || typeof of !== 'number' || typeof ms !== 'number') {
    throw new Error(`the revocation got ${status}`);
  }
  return { effectiveOn, of, ms };
}
