// A real Redis for tests: the one REDIS_URL names, else a server of the test file's own.
import { type ChildProcess, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { findRedisProgram } from './redis-server.ts';

export interface TestRedis {
  readonly url: string;
  /** Nobody else's keys and channels begin with this. */
  readonly prefix: string;
  stop(): Promise<void>;
}

/** A server that only this test uses, so that it may suffer. */
export interface OwnRedis extends TestRedis {
  readonly port: number;
  /** The process goes on existing and answers nothing. */
  pause(): void;
  resume(): void;
  /** Ends it with SIGKILL. */
  kill(): Promise<void>;
  /** Starts it again on its port, knowing nothing. */
  restart(): Promise<void>;
}

const START_TIMEOUT_MS = 20_000;

const given = () => process.env['REDIS_URL'] || undefined;

/** Why tests with Redis cannot run here, as the `skip` of node:test; false where they can. */
export async function withoutRedis(need: 'any' | 'own' = 'any'): Promise<string | false> {
  if (need === 'any' && given() !== undefined) return false;
  return findRedisProgram().then(
    () => false,
    (error: Error) => error.message,
  );
}

export async function testRedis(): Promise<TestRedis> {
  const url = given();
  return url === undefined ? ownRedis() : { url, prefix: uniquePrefix(), stop: async () => {} };
}

/** Starts a server on a free port that keeps nothing; further settings as on its command line. */
export async function ownRedis(settings: readonly string[] = []): Promise<OwnRedis> {
  const folder = await mkdtemp(join(tmpdir(), 'iora-redis-'));
  const port = await freePort();
  const start = () => startServer(port, folder, settings);
  let child = await start();
  const kill = () => end(child, 'SIGKILL');
  return {
    url: `redis://127.0.0.1:${port}`,
    port,
    prefix: uniquePrefix(),
    pause: () => void child.kill('SIGSTOP'),
    resume: () => void child.kill('SIGCONT'),
    kill,
    async restart() {
      await kill();
      child = await start();
    },
    async stop() {
      await kill();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function startServer(port: number, folder: string, settings: readonly string[]): Promise<ChildProcess> {
  const { path, environment } = await findRedisProgram();
  const options = ['--port', String(port), '--bind', '127.0.0.1', '--dir', folder, '--save', '', '--appendonly', 'no'];
  const child = spawn(path, [...settings, ...options], {
    env: { ...process.env, ...environment },
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  // Ended with the test's process, also when that ends in the middle.
  const endWithUs = () => void child.kill('SIGKILL');
  process.once('exit', endWithUs);
  child.once('exit', () => process.off('exit', endWithUs));
  const said: string[] = [];
  const signal = AbortSignal.timeout(START_TIMEOUT_MS);
  const ended = once(child, 'exit', { signal }).then(() => {
    throw new Error(`the Redis of this test ended before it was ready:\n${said.join('\n')}`);
  });
  ended.catch(() => undefined);
  const ready = Promise.withResolvers<void>();
  // Read to the end, since a pipe nobody empties would stop the server some day.
  createInterface({ input: child.stdout }).on('line', (line) => {
    if (said.length < 50) said.push(line);
    // The sentinel's word and the server's.
    if (/Ready to accept connections|Sentinel ID is/.test(line)) ready.resolve();
  });
  await Promise.race([ready.promise, ended]);
  return child;
}

async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, 'exit');
  child.kill(signal);
  await ended;
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

function uniquePrefix(): string {
  return `test:${randomUUID()}:`;
}
