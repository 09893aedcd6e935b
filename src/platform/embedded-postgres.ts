/**
 * PostgreSQL for those who have none: the real server from npm, kept below a data folder. One process at a time runs it
 * there, others use it beside that one; it outlives signals meant for us, comes back when it dies, and a crash of anything
 * leaves nothing that blocks the next start.
 */
import { Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Client } from 'pg';
import {
  initialise,
  isInitialised,
  openCluster,
  openDataFolder,
  password,
  removeUnfinished,
  SUPERUSER,
} from './embedded-postgres-cluster.ts';
import {
  EmbeddedPostgresError,
  type FolderLock,
  hasCode,
  type LockRecord,
  lockHolder,
  takeLock,
} from './embedded-postgres-lock.ts';
import { HOST, keepAlive } from './embedded-postgres-server.ts';
import { type Log, supervise } from './embedded-postgres-supervisor.ts';

export { EmbeddedPostgresError } from './embedded-postgres-lock.ts';

const LOCK_FILE = 'postgres.lock';
const DATABASE = 'iora';
/** A command's database stays up for other commands using it; longer ones than this lose it. */
const OTHER_COMMANDS_BOUND_MS = 60_000;
/** Longer than the above and a stop after it; a start takes a second, and one replaying a log that long is worth telling. */
const ATTACH_BOUND_MS = 90_000;
const ATTACH_POLL_MS = 50;
const CONNECT_BOUND_MS = 5_000;
/** CREATE DATABASE copies files and takes about 50 ms; a slow disk may need longer. */
const QUERY_BOUND_MS = 30_000;
/** PostgreSQL's code of it. */
const WRONG_PASSWORD = '28P01';
/** By this name a stopping command sees the others. */
const ATTACHED = 'iora attached';

export interface EmbeddedPostgresOptions {
  /** Created when missing; everything of the database is kept below it. */
  dataDir: string;
  /** Hears of starts, deaths, restarts and stops; never of data. */
  log?: Log | undefined;
  /** Ends the waiting for another process's server; a start of our own is finished all the same. */
  signal?: AbortSignal | undefined;
}

/** A PostgreSQL server below a data folder, ready for connections. */
export interface EmbeddedPostgres {
  /** On 127.0.0.1; stays the same when a server that died is restarted. */
  readonly port: number;
  /** True: this process started the server and `stop` stops it. False: another process did. */
  readonly started: boolean;
  /** Returns `postgres://LOGIN:PASSWORD@127.0.0.1:PORT/DATABASE`; the database is `iora` unless named. */
  url(login: string, database?: string): string;
  /** Returns the login's password from its file below the data folder (mode 0600), made on first use. */
  password(login: string): string;
  /** Stops the server when this process started it, else lets go of it. Further calls do nothing. */
  stop(): Promise<void>;
}

/**
 * Runs PostgreSQL below a folder, for the server process: initialises it on first use, makes the database `iora`, and clears
 * away what a crash left. Throws {@link EmbeddedPostgresError} when another live process has the folder, or it cannot start.
 */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  return await inForeground(options.dataDir, async () => {
    const folder = openDataFolder(options.dataDir);
    const taken = takeLock(join(folder, LOCK_FILE), 'server');
    if ('lock' in taken) return await run(folder, taken.lock, 'server', options.log);
    const { pid, use } = taken.holder;
    const advice = use === 'server' ? 'stop it first, or set IORA_DATA_DIR to another folder' : 'wait until it ends';
    const holder = use === 'server' ? `the server with process id ${pid}` : `a command with process id ${pid}`;
    throw new EmbeddedPostgresError(`The data folder ${folder} is in use by ${holder}: ${advice}.`);
  });
}

/**
 * Uses the PostgreSQL of a folder, for a command: the running one, or one of its own when none runs. Waits for one that is
 * just starting or stopping. Throws {@link EmbeddedPostgresError} when there is none to be had within the bound.
 */
export async function attachEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  return await inForeground(options.dataDir, async () => {
    const folder = openDataFolder(options.dataDir);
    const lockFile = join(folder, LOCK_FILE);
    const deadline = performance.now() + ATTACH_BOUND_MS;
    for (;;) {
      const running = lockHolder(lockFile);
      if (running === undefined) {
        const taken = takeLock(lockFile, 'command');
        if ('lock' in taken) return await run(folder, taken.lock, 'command', options.log);
      } else {
        const attached = await attach(folder, lockFile, running);
        if (attached !== undefined) return attached;
      }
      if (performance.now() > deadline || options.signal?.aborted) {
        const holder = running === undefined ? '' : ` (process id ${running.pid})`;
        throw new EmbeddedPostgresError(
          `The database below ${folder} is held by another process${holder} and does not answer: stop that process and try again.`,
        );
      }
      await delay(ATTACH_POLL_MS);
    }
  });
}

/**
 * An attached command holds one named connection. It connects before it looks whether the holder is stopping, and the
 * holder says that it is stopping before it looks for connections: so at least one of them sees the other.
 */
async function attach(folder: string, lockFile: string, holder: LockRecord): Promise<EmbeddedPostgres | undefined> {
  const { port } = holder;
  if (port === undefined || holder.stopping) return undefined;
  const presence = await connect(folder, port, ATTACHED).catch((error: unknown) => {
    if (error instanceof EmbeddedPostgresError) throw error;
    return undefined; // It is starting, stopping or dead just now; the caller tries again.
  });
  const now = lockHolder(lockFile);
  if (presence === undefined || now?.token !== holder.token || now.stopping) {
    await presence?.end();
    return undefined;
  }
  return handle(folder, port, false, () => presence.end());
}

async function run(
  folder: string,
  lock: FolderLock,
  use: LockRecord['use'],
  log: Log = () => {},
): Promise<EmbeddedPostgres> {
  try {
    const cluster = openCluster(folder);
    removeUnfinished(folder);
    if (!isInitialised(cluster)) {
      log('embedded_postgres.initialising', { directory: cluster.directory });
      await initialise(cluster);
    }
    const server = await supervise(cluster, lock, log);
    try {
      await makeDatabase(folder, server.port);
      lock.update({ port: server.port });
    } catch (error) {
      await server.stop();
      throw error;
    }
    log('embedded_postgres.started', { directory: cluster.directory, port: server.port });

    return handle(folder, server.port, true, async () => {
      try {
        lock.update({ stopping: true });
        if (use === 'command') await otherCommandsGone(folder, server.port, log);
      } catch (error) {
        // A server that does not answer, or whose folder was removed, is stopped all the same.
        log('embedded_postgres.stopping_unasked', { error: String(error) });
      } finally {
        await server.stop();
        lock.release();
      }
      log('embedded_postgres.stopped', { directory: cluster.directory });
    });
  } catch (error) {
    lock.release();
    throw error;
  }
}

/** Waits, with a bound, until no other command uses the server that this command started. */
async function otherCommandsGone(folder: string, port: number, log: Log): Promise<void> {
  const client = await connect(folder, port, 'iora stopping');
  try {
    const deadline = performance.now() + OTHER_COMMANDS_BOUND_MS;
    for (;;) {
      const { rows } = await client.query('SELECT FROM pg_stat_activity WHERE application_name = $1', [ATTACHED]);
      if (rows.length === 0) return;
      if (performance.now() > deadline) {
        log('embedded_postgres.commands_cut_off', { commands: rows.length, waitedMs: OTHER_COMMANDS_BOUND_MS });
        return;
      }
      await delay(ATTACH_POLL_MS);
    }
  } finally {
    await client.end();
  }
}

async function makeDatabase(folder: string, port: number): Promise<void> {
  const client = await connect(folder, port, 'iora starting', 'postgres');
  try {
    const { rows } = await client.query('SELECT FROM pg_database WHERE datname = $1', [DATABASE]);
    if (rows.length === 0) await client.query(`CREATE DATABASE ${DATABASE}`);
  } finally {
    await client.end();
  }
}

/** Connects as the superuser; the connection does not keep this process alive. */
async function connect(folder: string, port: number, name: string, database = DATABASE): Promise<Client> {
  const socket = new Socket();
  const client = new Client({
    host: HOST,
    port,
    database,
    user: SUPERUSER,
    password: password(folder, SUPERUSER),
    application_name: name,
    ssl: false,
    connectionTimeoutMillis: CONNECT_BOUND_MS,
    query_timeout: QUERY_BOUND_MS,
    stream: () => socket,
  });
  // A server that ends closes its connections; whoever uses this one learns it from the next query.
  client.on('error', () => {});
  try {
    await client.connect();
  } catch (error) {
    socket.destroy();
    if (!hasCode(error, WRONG_PASSWORD)) throw error;
    const advice = `The database below ${folder} refuses the password in its secrets folder: restore that file from a backup.`;
    throw new EmbeddedPostgresError(advice, { cause: error });
  }
  socket.unref();
  return client;
}

function handle(folder: string, port: number, started: boolean, stopOnce: () => Promise<void>): EmbeddedPostgres {
  let stopped: Promise<void> | undefined;
  return {
    port,
    started,
    url: (login, database = DATABASE) =>
      `postgres://${login}:${password(folder, login)}@${HOST}:${port}/${encodeURIComponent(database)}`,
    password: (login) => password(folder, login),
    stop: () => (stopped ??= keepAlive(stopOnce)),
  };
}

/** Keeps this process alive during the work, and gives errors of the system and of PostgreSQL a first line to act on. */
async function inForeground<T>(dataDir: string, work: () => Promise<T>): Promise<T> {
  try {
    return await keepAlive(work);
  } catch (cause) {
    if (!(cause instanceof Error && 'code' in cause)) throw cause;
    const advice = `Cannot use the data folder ${dataDir} (${cause.message}): let this user write there, or set IORA_DATA_DIR to another folder.`;
    throw new EmbeddedPostgresError(advice, { cause });
  }
}
