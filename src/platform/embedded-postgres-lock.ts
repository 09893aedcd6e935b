/**
 * The lock of a data folder: one small file that says which process may run PostgreSQL there. A process is told apart from
 * a later one with the same pid by its start time, so a crash never leaves a lock that blocks.
 */
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  fchownSync,
  fsyncSync,
  linkSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { z } from 'zod';

/** What the children we start see: nothing of our own environment, which may hold keys and passwords. */
export const CHILD_ENVIRONMENT = {
  LANG: 'C.UTF-8',
  LC_ALL: 'C.UTF-8',
  TZ: 'UTC',
  PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
} as const;

/** Rounds of "the lock vanished or changed while we looked": each needs another process to finish in that very moment. */
const CLAIM_ATTEMPTS = 20;
/** Processes that died, one after the other, in the instant of taking over from each other. */
const MAX_DEAD_SUCCESSORS = 5;

const lockRecord = z.object({
  token: z.string(),
  pid: z.number().int().positive(),
  startedAt: z.string(),
  use: z.enum(['server', 'command']),
  port: z.number().int().optional(),
  postmasterPid: z.number().int().optional(),
  stopping: z.boolean().optional(),
});

/** Content of the lock file; `port` is there once the database answers, `stopping` once the holder began to stop it. */
export type LockRecord = Readonly<z.infer<typeof lockRecord>>;

/** The lock, held by this process. */
export interface FolderLock {
  readonly token: string;
  /** Adds facts to the lock file; throws when the file is no longer ours (someone removed the folder). */
  update(details: Partial<Pick<LockRecord, 'port' | 'postmasterPid' | 'stopping'>>): void;
  /** Gives the folder free. */
  release(): void;
}

/**
 * Takes the lock at `file`, also from a holder that died. Returns the lock, or the record of the live process that has it:
 * of any number of processes trying at once exactly one gets it.
 */
export function takeLock(file: string, use: LockRecord['use']): { lock: FolderLock } | { holder: LockRecord } {
  const startedAt = processIdentity(process.pid);
  if (startedAt === undefined) throw new EmbeddedPostgresError('Cannot read the start time of this process.');
  let record: LockRecord = { token: newToken(), pid: process.pid, startedAt, use };
  const holder = claim(file, record);
  if (holder !== undefined) return { holder };

  // Claims on the locks of dead holders are history now; a crash in the middle of one may have left its file.
  for (const name of readdirSync(dirname(file))) {
    if (name.startsWith(`${basename(file)}.`)) rmSync(join(dirname(file), name), { force: true });
  }
  const isOurs = () => readLock(file)?.token === record.token;
  return {
    lock: {
      token: record.token,
      update(details) {
        if (!isOurs()) throw new EmbeddedPostgresError(`The lock file ${file} was removed while this process ran.`);
        record = { ...record, ...details };
        replaceFile(file, JSON.stringify(record));
      },
      release() {
        if (isOurs()) rmSync(file, { force: true });
      },
    },
  };
}

/** Returns the record of the live process holding the lock at `file`, or undefined when nobody does. */
export function lockHolder(file: string): LockRecord | undefined {
  const record = readLock(file);
  return record !== undefined && isRunning(record) ? record : undefined;
}

/**
 * Returns a string that tells this run of `pid` from every other process that has or had that pid, or undefined when no
 * such process runs (one that ended and waits to be reaped does not run).
 */
export function processIdentity(pid: number, platform: NodeJS.Platform = process.platform): string | undefined {
  if (platform !== 'linux') {
    const options = { encoding: 'utf8', env: CHILD_ENVIRONMENT } as const;
    const [state, ...start] = spawnSync('ps', ['-o', 'stat=,lstart=', '-p', `${pid}`], options)
      .stdout.trim()
      .split(/\s+/);
    return state === undefined || state === '' || state.startsWith('Z') ? undefined : start.join(' ');
  }
  const stat = readIfThere(`/proc/${pid}/stat`);
  // The second field is the program's name in brackets and may hold anything, so fields are counted from its end.
  const fields = stat?.slice(stat.lastIndexOf(')') + 2).split(' ');
  if (fields === undefined || fields[0] === 'Z' || fields[0] === 'X') return undefined;
  // Start times count from boot, so the boot is part of it: after a reboot pid and time can meet again by chance.
  return `${fields[19]}@${readIfThere('/proc/sys/kernel/random/boot_id')?.trim() ?? ''}`;
}

/**
 * Writes a file of mode 0600 that appears whole or not at all, and is on disk when this returns. Returns false, and changes
 * nothing, when the path is taken. Written by root it belongs to whoever owns the folder, so that this user can go on later.
 */
export function createFile(path: string, text: string): boolean {
  const draft = writeDraft(path, text);
  try {
    linkSync(draft, path);
  } catch (error) {
    if (hasCode(error, 'EEXIST')) return false;
    throw error;
  } finally {
    rmSync(draft, { force: true });
  }
  syncFolder(dirname(path));
  return true;
}

/** Like {@link createFile}, but takes the place of a file that is there. */
export function replaceFile(path: string, text: string): void {
  renameSync(writeDraft(path, text), path);
}

/** Makes created and renamed entries of a folder survive a power cut. */
export function syncFolder(path: string): void {
  const folder = openSync(path, 'r');
  try {
    fsyncSync(folder);
  } finally {
    closeSync(folder);
  }
}

/** Returns the text of a file, or undefined when there is none (or, below /proc, no such process any more). */
export function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (hasCode(error, 'ENOENT') || hasCode(error, 'ESRCH')) return undefined;
    throw error;
  }
}

/** True when `error` is a system error with this code. */
export function hasCode(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}

/** True when this process is root, which PostgreSQL refuses to run as. */
export function isRoot(): boolean {
  return process.geteuid?.() === 0;
}

/**
 * Puts `mine` at `file` and returns undefined, or returns the live record that is in the way. A dead record is replaced only
 * by the process that holds `<file>.<token of the dead record>`, itself taken by this same rule, and only while the dead
 * record still stands: two processes that saw the same dead holder can therefore never both replace it.
 */
function claim(file: string, mine: LockRecord, deadSuccessors = 0): LockRecord | undefined {
  if (deadSuccessors > MAX_DEAD_SUCCESSORS) throw new EmbeddedPostgresError(`Remove the damaged lock file ${file}.`);
  for (let attempt = 0; attempt < CLAIM_ATTEMPTS; attempt++) {
    if (createFile(file, JSON.stringify(mine))) return undefined;
    const found = readLock(file);
    if (found === undefined) continue;
    if (isRunning(found)) return found;
    const succession = `${file}.${found.token}`;
    const rival = claim(succession, { ...mine, token: newToken() }, deadSuccessors + 1);
    if (rival !== undefined) return rival;
    try {
      if (readLock(file)?.token === found.token) {
        replaceFile(file, JSON.stringify(mine));
        return undefined;
      }
    } finally {
      rmSync(succession, { force: true });
    }
  }
  throw new EmbeddedPostgresError(`The lock file ${file} keeps changing: too many processes start there at once.`);
}

function readLock(file: string): LockRecord | undefined {
  const text = readIfThere(file);
  if (text === undefined) return undefined;
  try {
    return lockRecord.parse(JSON.parse(text));
  } catch (cause) {
    const advice = `The lock file ${file} is damaged: remove it when no IORA process uses this folder.`;
    throw new EmbeddedPostgresError(advice, { cause });
  }
}

function isRunning(record: LockRecord): boolean {
  return processIdentity(record.pid) === record.startedAt;
}

function writeDraft(path: string, text: string): string {
  const draft = join(dirname(path), `.draft-${newToken()}`);
  const file = openSync(draft, 'wx', 0o600);
  try {
    const { uid, gid } = statSync(dirname(path));
    if (isRoot()) fchownSync(file, uid, gid);
    writeSync(file, text);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  return draft;
}

function newToken(): string {
  return randomBytes(8).toString('hex');
}

/** Why the embedded database cannot be had; the message is one line that says what to do. */
export class EmbeddedPostgresError extends Error {
  override readonly name = 'EmbeddedPostgresError';
}
