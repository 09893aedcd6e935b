/** One running PostgreSQL server: starting it, telling when it is ready, stopping it, and clearing away one left by a crash. */
import { spawn, spawnSync } from 'node:child_process';
import {
  closeSync,
  fchownSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type Cluster, command } from './embedded-postgres-cluster.ts';
import {
  CHILD_ENVIRONMENT,
  EmbeddedPostgresError,
  hasCode,
  isRoot,
  processIdentity,
  readIfThere,
  replaceFile,
} from './embedded-postgres-lock.ts';

/** The only address the server listens on. */
export const HOST = '127.0.0.1';

const POLL_MS = 20;
/** The timer only has to exist. */
const KEEP_ALIVE_MS = 60_000;
/** Rotated at start; while it runs the server writes only its own few lines there (see the settings below). */
const MAX_LOG_BYTES = 8 * 1024 * 1024;
/** What an error message quotes of the log. */
const LOG_TAIL_LINES = 5;
/** Fast shutdown ends sessions and writes a checkpoint; then immediate, whose own bound for its children is 5 s; then kill. */
const STOP_STEPS = [
  { signal: 'SIGINT', boundMs: 15_000 },
  { signal: 'SIGQUIT', boundMs: 10_000 },
  { signal: 'SIGKILL', boundMs: 5_000 },
] as const;
/** Sessions whose server died end by themselves when they next wait; one deep in a computation is ended after this. */
const LEFTOVER_BOUND_MS = 2_000;
/** Above every system's largest pid, so it names no process. */
const NO_PROCESS = 2_147_483_647;

/**
 * Durability is left at PostgreSQL's defaults (on). Given on the command line so that nothing in the cluster overrides it.
 * Level `log` leaves out the errors of statements, whose texts and details may hold the caller's data; the caller gets them.
 */
const SETTINGS = {
  listen_addresses: HOST,
  unix_socket_directories: '',
  password_encryption: 'scram-sha-256',
  timezone: 'UTC',
  log_timezone: 'UTC',
  log_destination: 'stderr',
  logging_collector: 'off',
  log_checkpoints: 'off',
  log_min_messages: 'log',
  log_min_error_statement: 'panic',
  log_error_verbosity: 'terse',
  log_statement: 'none',
  log_min_duration_statement: '-1',
  log_parameter_max_length: '0',
  log_parameter_max_length_on_error: '0',
};

/** A started server process. */
export interface Postmaster {
  readonly pid: number;
  /** Settles, with how it ended, when the process ends; does not keep this process alive. */
  readonly exited: Promise<string>;
}

/**
 * Starts PostgreSQL on 127.0.0.1:`port` in a process group of its own, so that a Ctrl-C meant for us does not stop it under
 * our feet, and returns when it takes connections. `onSpawn` hears the process before it is ready. Throws with the end of
 * the log when it ends early or is not ready within `boundMs`; then no process is left.
 */
export async function launch(
  cluster: Cluster,
  port: number,
  boundMs: number,
  onSpawn: (postmaster: Postmaster) => void,
): Promise<Postmaster> {
  const log = openLog(cluster.dataDir);
  const settings = Object.entries({ ...SETTINGS, port }).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
  const { file, words, options } = command(cluster, cluster.postgres, ['-D', cluster.directory, ...settings]);
  const child = spawn(file, words, { ...options, detached: true, stdio: ['ignore', log.descriptor, log.descriptor] });
  closeSync(log.descriptor);
  child.unref();
  let end: string | undefined;
  const exited = new Promise<string>((resolve) => {
    child.once('error', (error) => resolve(error.message));
    child.once('exit', (code, signal) => resolve(signal ?? `exit code ${code}`));
  });
  void exited.then((how) => {
    end = how;
  });
  const { pid } = child;
  if (pid === undefined) throw new EmbeddedPostgresError(`Cannot run PostgreSQL: ${await exited}`);
  const postmaster = { pid, exited };
  onSpawn(postmaster);

  const settled = await until(() => end !== undefined || isReady(cluster, pid), boundMs);
  if (settled && end === undefined) return postmaster;
  const problem = settled ? `ended (${end})` : `was not ready within ${Math.round(boundMs / 1000)} s`;
  if (!settled) await stopPostmaster(cluster, pid);
  throw new EmbeddedPostgresError(
    `PostgreSQL in ${cluster.directory} ${problem}. Its log ${log.path} ends: ${log.tail()}`,
  );
}

/** Stops a server of this cluster: fast, after a bound immediately, after another by force. Throws when nothing helps. */
export async function stopPostmaster(cluster: Cluster, pid: number): Promise<void> {
  const identity = processIdentity(pid);
  if (identity === undefined) return;
  // A process stopped by SIGSTOP acts on no other signal but SIGKILL until it is told to go on.
  for (const stopped of clusterProcesses(cluster.directory)) signal(stopped, 'SIGCONT');
  for (const step of STOP_STEPS) {
    signal(pid, step.signal);
    if (await until(() => processIdentity(pid) !== identity, step.boundMs)) return;
  }
  throw new EmbeddedPostgresError(
    `The PostgreSQL process ${pid} of ${cluster.directory} cannot be stopped; restart the machine.`,
  );
}

/**
 * Makes the cluster free for a new server; call it only with the folder's lock held. A server left running by a crash is
 * stopped rather than adopted: nothing committed is lost, and there is one kind of server, our child, whose end we hear of.
 * Its sessions end with it. Afterwards nothing in the folder names another program's process as the running server.
 */
export async function clearLeftovers(cluster: Cluster): Promise<void> {
  const pidFile = join(cluster.directory, 'postmaster.pid');
  const orphan = postmasterPid(readIfThere(pidFile));
  if (clusterProcesses(cluster.directory).includes(orphan)) await stopPostmaster(cluster, orphan);
  const allGone = () => clusterProcesses(cluster.directory).length === 0;
  if (!(await until(allGone, LEFTOVER_BOUND_MS))) {
    for (const pid of clusterProcesses(cluster.directory)) signal(pid, 'SIGKILL');
    await until(allGone, LEFTOVER_BOUND_MS);
  }

  const text = readIfThere(pidFile);
  if (text === undefined) return;
  if (postmasterPid(text) === 0) {
    // A power cut left it empty, and PostgreSQL would refuse to start.
    rmSync(pidFile);
  } else {
    // The pid may by now be another program's, which PostgreSQL would take for its own server. Only the pid is replaced: by
    // the rest of the file PostgreSQL checks that no session of the dead server still uses its shared memory.
    replaceFile(pidFile, [NO_PROCESS, ...text.split('\n').slice(1)].join('\n'));
  }
}

/**
 * Waits until `condition` holds; returns false when it does not within the bound. Waiting does not keep this process alive:
 * a server is also watched and restarted in a process that has nothing else left to do. See {@link keepAlive}.
 */
export async function until(condition: () => boolean, boundMs: number): Promise<boolean> {
  const deadline = performance.now() + boundMs;
  while (!condition()) {
    if (performance.now() > deadline) return false;
    await delay(POLL_MS, undefined, { ref: false });
  }
  return true;
}

/** Keeps this process alive until the work is done, for work that somebody waits for. */
export async function keepAlive<T>(work: () => Promise<T>): Promise<T> {
  const timer = setInterval(() => {}, KEEP_ALIVE_MS);
  try {
    return await work();
  } finally {
    clearInterval(timer);
  }
}

/** Returns the pids of the server processes working in a cluster's folder; off Linux only those of the server itself. */
export function clusterProcesses(directory: string, platform: NodeJS.Platform = process.platform): number[] {
  if (platform !== 'linux') {
    const { stdout } = spawnSync('ps', ['-axo', 'pid=,command='], { encoding: 'utf8', env: CHILD_ENVIRONMENT });
    const servers = stdout.split('\n').filter((line) => line.includes(`postgres -D ${directory} `));
    return servers.map((line) => Number.parseInt(line, 10));
  }
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  return pids.filter((pid) => worksIn(pid, directory)).map(Number);
}

function worksIn(pid: string, directory: string): boolean {
  try {
    if (readlinkSync(`/proc/${pid}/cwd`) !== directory) return false;
    // The server shows its path, its children show "postgres: what they do"; a shell that stands there is neither.
    const [program = ''] = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
    return program.endsWith('/postgres') || program.startsWith('postgres:');
  } catch {
    return false; // It ended meanwhile, or belongs to another user and so is none of ours.
  }
}

function isReady(cluster: Cluster, pid: number): boolean {
  const lines = readIfThere(join(cluster.directory, 'postmaster.pid'))?.split('\n');
  return lines?.[0] === `${pid}` && lines[7]?.trim() === 'ready';
}

function postmasterPid(text = ''): number {
  return Math.max(Number.parseInt(text, 10) || 0, 0);
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch (cause) {
    if (hasCode(cause, 'ESRCH')) return;
    throw new EmbeddedPostgresError(
      `PostgreSQL (process ${pid}) runs as another user: stop it as that user or as root.`,
      { cause },
    );
  }
}

function openLog(dataDir: string): { path: string; descriptor: number; tail(): string } {
  const path = join(dataDir, 'postgres.log');
  const size = statSync(path, { throwIfNoEntry: false })?.size ?? 0;
  if (size > MAX_LOG_BYTES) renameSync(path, `${path}.1`);
  const start = size > MAX_LOG_BYTES ? 0 : size;
  const descriptor = openSync(path, 'a', 0o600);
  const { uid, gid } = statSync(dataDir);
  if (isRoot()) fchownSync(descriptor, uid, gid);
  const lines = () => readFileSync(path).subarray(start).toString('utf8').split('\n').filter(Boolean);
  return { path, descriptor, tail: () => lines().slice(-LOG_TAIL_LINES).join(' | ') };
}
