/**
 * The database files below a data folder: which binaries and which system account run them, their passwords, and their
 * first initialisation.
 */
import { execFile, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import {
  CHILD_ENVIRONMENT,
  createFile,
  EmbeddedPostgresError,
  hasCode,
  isRoot,
  readIfThere,
  syncFolder,
} from './embedded-postgres-lock.ts';

/** Login of the cluster's owner. */
export const SUPERUSER = 'postgres';

/** Creating the cluster takes below a second; a bound so far above it only ends a machine that hangs. */
const INITDB_TIMEOUT_MS = 120_000;
/** Folders of initialisations, finished or not, start with this; only a whole cluster is renamed to its place. */
const DRAFT_PREFIX = 'postgres.init-';
/** Logins become file names and parts of a URL. */
const LOGIN = /^[a-z_][a-z0-9_]{0,62}$/;

/** A cluster of database files and how its programs are run. */
export interface Cluster {
  /** Absolute, without symbolic links: running servers are recognised by it. */
  readonly dataDir: string;
  readonly directory: string;
  readonly initdb: string;
  readonly postgres: string;
  readonly account: Account;
}

/** How to run PostgreSQL's programs: words before the command, and the user to switch to. */
interface Account {
  readonly wrapper: readonly string[];
  readonly user?: User | undefined;
}

interface User {
  readonly uid: number;
  readonly gid: number;
}

/** Creates the data folder (mode 0700) where it is missing and returns its real path. */
export function openDataFolder(dataDir: string): string {
  mkdirSync(dirname(dataDir), { recursive: true });
  makeFolder(dataDir);
  return realpathSync(dataDir);
}

/** Returns the cluster of a data folder, initialised or not; throws one clear line when it cannot be run here. */
export function openCluster(dataDir: string): Cluster {
  const directory = join(dataDir, 'postgres');
  const bin = findBinaries();
  const postgres = join(bin, 'postgres');
  return { dataDir, directory, postgres, initdb: join(bin, 'initdb'), account: chooseAccount(directory, postgres) };
}

/** True when the cluster was initialised. */
export function isInitialised(cluster: Cluster): boolean {
  return existsSync(cluster.directory);
}

/** Removes what initialisations that were killed have left; call it only with the folder's lock held. */
export function removeUnfinished(dataDir: string): void {
  for (const name of readdirSync(dataDir)) {
    if (!name.startsWith(DRAFT_PREFIX)) continue;
    try {
      rmSync(join(dataDir, name), { recursive: true, force: true });
    } catch (error) {
      // The initdb of a killed process may still be writing there. It is in nobody's way, and the next start removes it.
      if (!hasCode(error, 'ENOTEMPTY')) throw error;
    }
  }
}

/**
 * Creates the cluster: UTF-8, SCRAM passwords, data checksums (PostgreSQL 18's default). It grows in a folder beside its
 * place and is renamed when it is whole and on disk, so one that is killed leaves nothing but rubbish.
 */
export async function initialise(cluster: Cluster): Promise<void> {
  const draft = mkdtempSync(join(cluster.dataDir, DRAFT_PREFIX));
  const passwordFile = join(draft, 'password');
  try {
    writeFileSync(passwordFile, password(cluster.dataDir, SUPERUSER), { mode: 0o600, flag: 'wx' });
    for (const path of [passwordFile, draft]) {
      if (cluster.account.user !== undefined) chownSync(path, cluster.account.user.uid, cluster.account.user.gid);
    }
    const made = join(draft, 'cluster');
    const settings = ['-E', 'UTF8', '--locale=C.UTF-8', '--auth=scram-sha-256', `--pwfile=${passwordFile}`];
    const args = ['-D', made, '-U', SUPERUSER, ...settings, '--no-instructions'];
    const { file, words, options } = command(cluster, cluster.initdb, args);
    await promisify(execFile)(file, words, { ...options, timeout: INITDB_TIMEOUT_MS });
    renameSync(made, cluster.directory);
    syncFolder(cluster.dataDir);
  } catch (cause) {
    throw new EmbeddedPostgresError(`Cannot create the database in ${cluster.dataDir}: ${whyInitdbFailed(cause)}`, {
      cause,
    });
  } finally {
    rmSync(draft, { recursive: true, force: true });
  }
}

/** Returns file, arguments and spawn options that run one of PostgreSQL's programs under the cluster's account. */
export function command(cluster: Cluster, binary: string, args: readonly string[]) {
  const [file = binary, ...words] = [...cluster.account.wrapper, binary, ...args];
  return { file, words, options: { ...cluster.account.user, cwd: '/', env: CHILD_ENVIRONMENT } };
}

/** Returns the password of a login from its file of mode 0600, made on first use (32 random bytes, base64url). */
export function password(dataDir: string, login: string): string {
  if (!LOGIN.test(login))
    throw new EmbeddedPostgresError(`Not a login of the embedded database: ${JSON.stringify(login)}.`);
  const file = join(dataDir, 'secrets', `${login}.password`);
  const kept = readIfThere(file);
  if (kept !== undefined) return kept;
  if (login === SUPERUSER && existsSync(join(dataDir, 'postgres'))) {
    throw new EmbeddedPostgresError(
      `The password file ${file} of the existing database is missing: restore it from a backup.`,
    );
  }
  makeFolder(dirname(file));
  const { uid, gid } = statSync(dataDir);
  if (isRoot()) chownSync(dirname(file), uid, gid);
  createFile(file, randomBytes(32).toString('base64url'));
  return password(dataDir, login);
}

function makeFolder(path: string): void {
  try {
    mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    if (hasCode(error, 'EEXIST') && statSync(path).isDirectory()) return;
    throw error;
  }
}

function findBinaries(): string {
  const system = { linux: 'linux', darwin: 'darwin' }[process.platform as string];
  const name = `@embedded-postgres/${system ?? process.platform}-${process.arch}`;
  try {
    if (system === undefined) throw new Error(`not supported on ${process.platform}`);
    return join(dirname(fileURLToPath(import.meta.resolve(name))), '..', 'native', 'bin');
  } catch (cause) {
    const platform = `${process.platform}-${process.arch}`;
    const advice = `There is no embedded PostgreSQL for ${platform} here (package ${name}): set DATABASE_URL to a PostgreSQL 15 to 18, or install the package.`;
    throw new EmbeddedPostgresError(advice, { cause });
  }
}

/**
 * PostgreSQL refuses to run as root. Root therefore runs it as the owner of the data folder or a system user, and where that
 * user cannot enter the folder or reach the binaries, in a user namespace where root is an ordinary user. Which of the two
 * was chosen first is told by the owner of the cluster's files, and stays.
 */
function chooseAccount(directory: string, postgres: string): Account {
  const dataDir = dirname(directory);
  const owner = existsSync(directory) ? statSync(directory) : undefined;
  if (!isRoot()) {
    if (owner === undefined || owner.uid === process.geteuid?.()) return { wrapper: [] };
    throw new EmbeddedPostgresError(
      `The database in ${directory} belongs to user id ${owner.uid}: start as that user or as root.`,
    );
  }
  const systemUsers = [SUPERUSER, 'nobody'].flatMap(findUser);
  if (owner === undefined || owner.uid !== 0) {
    const folderOwner = statSync(dataDir);
    const candidates =
      owner !== undefined ? [owner] : [...(folderOwner.uid === 0 ? [] : [folderOwner]), ...systemUsers];
    const user = candidates.find((candidate) => canReach(candidate, dirname(dataDir)) && canReach(candidate, postgres));
    if (user !== undefined) {
      if (!canReach(user, dataDir)) openToGroup(dataDir, user);
      return { wrapper: [], user: { uid: user.uid, gid: user.gid } };
    }
  }
  if (owner === undefined || owner.uid === 0) {
    for (const { uid, gid } of systemUsers) {
      const wrapper = ['unshare', '--user', `--map-user=${uid}`, `--map-group=${gid}`, '--'];
      if (runs([...wrapper, postgres, '--version'])) return { wrapper };
    }
  }
  const wanted =
    owner === undefined || owner.uid === 0 ? 'no system user' : `user id ${owner.uid}, who owns the database,`;
  throw new EmbeddedPostgresError(
    `PostgreSQL does not run as root, and ${wanted} can reach ${dataDir} and ${postgres}: start as an ordinary user, or move the data folder (IORA_DATA_DIR) and the program below folders open to others.`,
  );
}

function findUser(name: string): User[] {
  const ids = ['-u', '-g'].map((which) => {
    return Number.parseInt(spawnSync('id', [which, name], { encoding: 'utf8', env: CHILD_ENVIRONMENT }).stdout, 10);
  });
  const [uid, gid] = ids;
  return uid !== undefined && gid !== undefined && ids.every(Number.isInteger) ? [{ uid, gid }] : [];
}

/** Asks the kernel as that user, because access lists and mounts count as well as modes. */
function canReach(user: User, path: string): boolean {
  return runs(['/bin/sh', '-c', '[ -x "$1" ]', 'sh', path], user);
}

/** Lets the user's group pass through the folder, not list it. */
function openToGroup(dataDir: string, user: User): void {
  const { uid, mode } = statSync(dataDir);
  chownSync(dataDir, uid, user.gid);
  chmodSync(dataDir, (mode & 0o707) | 0o010);
}

function runs([file = '', ...words]: readonly string[], user?: User): boolean {
  const { uid, gid } = user ?? {};
  const identity = uid === undefined || gid === undefined ? {} : { uid, gid };
  return spawnSync(file, words, { ...identity, cwd: '/', env: CHILD_ENVIRONMENT, stdio: 'ignore' }).status === 0;
}

function whyInitdbFailed(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const lines = 'stderr' in error ? String(error.stderr).trim().split('\n') : [];
  const reason = lines.findLast((line) => line.includes('error:')) ?? lines.at(-1) ?? '';
  if (reason.includes('shared libraries')) return `${reason} (run: npm rebuild, its install script makes the links)`;
  return reason === '' ? (error.message.split('\n')[0] ?? '') : reason;
}
