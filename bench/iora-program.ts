// IORA as an operator starts it: the program itself, on a data folder of its own, with its embedded PostgreSQL.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { signLocalToken } from '../src/features/tenants/index.ts';
import { startEmbeddedPostgres } from '../src/platform/embedded-postgres.ts';
import { localSecret } from '../src/platform/local-secrets.ts';
import { ended } from './processes.ts';
import { withClient } from './temporary-postgres.ts';

export interface IoraProgram {
  readonly pid: number;
  readonly port: number;
  /** Process id of the PostgreSQL that it started. */
  readonly postgresPid: number;
  /** URL with which the program itself logs in to its database. */
  readonly serviceUrl: string;
  /** Puts the limits of new owners out of reach; they stay in force and are counted. */
  liftLimits(): Promise<void>;
  /** Signs a tenant in, without limits that could be met, and makes an API key. */
  createKey(): Promise<string>;
  /** Asks the program to stop, waits until it has, and runs `work` on its database, started once more. */
  stopAndInspect<T>(work: (superuserUrl: string) => Promise<T>): Promise<T>;
  /** Ends what still runs and removes the data folder. */
  remove(): Promise<void>;
}

const SERVE = fileURLToPath(new URL('../src/main/serve.ts', import.meta.url));
/** The first start makes a database cluster, which takes about two seconds. */
const START_MAX_MS = 60_000;
/** The program's own deadline is 15 s, and PostgreSQL's checkpoint comes after it. */
const STOP_MAX_MS = 40_000;
const TENANT = 'bench@example.com';

/** Starts the program; `settings` are added to its environment. The log goes to a file in the data folder. */
export async function startIora(settings: Readonly<Record<string, string>>): Promise<IoraProgram> {
  const dataDir = await mkdtemp(join(tmpdir(), 'iora-bench-'));
  const log = openSync(join(dataDir, 'iora.log'), 'a', 0o600);
  const { PATH, HOME } = process.env;
  const child = spawn(process.execPath, [SERVE], {
    env: { PATH, HOME, IORA_DATA_DIR: dataDir, PORT: '0', MARKET_SOURCES: 'simulated', ...settings },
    stdio: ['ignore', 'pipe', log],
  });
  closeSync(log);
  const remove = async () => {
    await ended(child, () => child.kill('SIGTERM'), STOP_MAX_MS);
    await rm(dataDir, { recursive: true, force: true, maxRetries: 5 });
  };
  try {
    const port = await listening(child, dataDir);
    const [postgresPid, , , postgresPort] = (await readFile(join(dataDir, 'postgres', 'postmaster.pid'), 'utf8')).split(
      '\n',
    );
    const urlOf = async (login: string) => {
      const password = await readFile(join(dataDir, 'secrets', `${login}.password`), 'utf8');
      return `postgres://${login}:${password}@127.0.0.1:${postgresPort}/iora`;
    };
    const superuserUrl = await urlOf('postgres');
    return {
      pid: child.pid ?? 0,
      port,
      postgresPid: Number(postgresPid),
      serviceUrl: await urlOf('iora_api'),
      liftLimits: () => withClient(superuserUrl, async (client) => void (await client.query(LIFTED))),
      createKey: () => createKey(dataDir, port, superuserUrl),
      async stopAndInspect(work) {
        await ended(child, () => child.kill('SIGTERM'), STOP_MAX_MS);
        if (child.exitCode !== 0) throw new Error(`the program did not stop in order: ${await logTail(dataDir)}`);
        const postgres = await startEmbeddedPostgres({ dataDir });
        try {
          return await work(postgres.url('postgres'));
        } finally {
          await postgres.stop();
        }
      },
      remove,
    };
  } catch (error) {
    await remove();
    throw error;
  }
}

/** Waits for the line that says where the program listens. Returns the port. */
async function listening(child: ChildProcess, dataDir: string): Promise<number> {
  const signal = AbortSignal.timeout(START_MAX_MS);
  const failed = once(child, 'exit', { signal }).then(async () => {
    throw new Error(`the program did not start: ${await logTail(dataDir)}`);
  });
  failed.catch(() => undefined);
  let text = '';
  child.stdout?.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk;
    if (text.includes('\n')) child.emit('line');
  });
  await Promise.race([once(child, 'line', { signal }), failed]);
  const port = /:(\d+)\s*$/.exec(text)?.[1];
  if (port === undefined) throw new Error(`the program does not say where it listens: ${text}`);
  return Number(port);
}

/** The session is a token of the local identity provider; the key is made over HTTP, as a tenant makes one. */
async function createKey(dataDir: string, port: number, superuserUrl: string): Promise<string> {
  const token = await signLocalToken(localSecret(dataDir, 'local-identity').secret, { email: TENANT });
  const response = await fetch(`http://127.0.0.1:${port}/user/api-keys`, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${token}`,
      'content-type': 'application/json',
    },
    body: JSON.stringify({ name: 'bench' }),
  });
  const answer = (await response.json()) as { key?: string };
  if (answer.key === undefined) throw new Error(`no key was made: ${JSON.stringify(answer)}`);
  await withClient(superuserUrl, (client) => client.query(UNLIMITED));
  return answer.key;
}

/** The limits stay in force and are counted; they are only too far away to be met. */
const UNLIMITED = `
  UPDATE tiers SET ceiling_per_minute = 1000000000 WHERE name = 'enterprise';
  UPDATE users SET tier = 'enterprise', max_requests_per_minute = 1000000000;`;

/** The same for everybody who is still to come. */
const LIFTED = `
  UPDATE tiers SET requests_per_minute = NULL, requests_per_month = NULL, ceiling_per_minute = 1000000000,
                   ceiling_per_month = 1000000000000 WHERE name = 'free'`;

const LOG_TAIL_CHARACTERS = 2_000;

async function logTail(dataDir: string): Promise<string> {
  return (await readFile(join(dataDir, 'iora.log'), 'utf8')).slice(-LOG_TAIL_CHARACTERS);
}
