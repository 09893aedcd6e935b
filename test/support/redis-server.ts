// Where the tests find a Redis to run: on PATH, else Debian's packages unpacked below node_modules, without being root.
import { execFile } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { mkdir, mkdtemp, readdir, rename, rm } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);

export interface RedisProgram {
  readonly path: string;
  /** What the program needs of its environment to find its libraries. */
  readonly environment: Readonly<Record<string, string>>;
}

const PROGRAMS = ['redis-server', 'valkey-server'];
const cacheFolder = fileURLToPath(new URL('../../node_modules/.cache/redis', import.meta.url));
/** About 2 MB come over the network. */
const DOWNLOAD_TIMEOUT_MS = 120_000;

/** The program; throws Error with one line that says what to install where there is none and none can be fetched. */
export async function findRedisProgram(): Promise<RedisProgram> {
  const folders = (process.env['PATH'] ?? '').split(delimiter).filter((folder) => folder !== '');
  const found = PROGRAMS.flatMap((name) => folders.map((folder) => join(folder, name))).find(isProgram);
  if (found !== undefined) return { path: found, environment: {} };
  const path = join(cacheFolder, 'usr/bin/redis-server');
  if (!isProgram(path)) await fetchPackages();
  const libraries = join(cacheFolder, 'usr/lib');
  // Debian keeps them in a folder named after the architecture. There are none where the machine lacked no library.
  const inner = (await readdir(libraries).catch(() => [])).map((name) => join(libraries, name));
  return { path, environment: { LD_LIBRARY_PATH: [...inner, libraries].join(delimiter) } };
}

async function fetchPackages(): Promise<void> {
  await mkdir(join(cacheFolder, '..'), { recursive: true });
  const folder = await mkdtemp(`${cacheFolder}-`);
  try {
    const options = { cwd: folder, timeout: DOWNLOAD_TIMEOUT_MS };
    // What would be installed beside them: the libraries this machine lacks.
    const { stdout } = await run(
      'apt-get',
      ['install', '--simulate', '--no-install-recommends', 'redis-server'],
      options,
    );
    const missing = [...stdout.matchAll(/^Inst (\S+)/gm)].map((match) => match[1] ?? '');
    const packages = new Set(['redis-server', 'redis-tools', ...missing]);
    await run('apt-get', ['download', ...packages], options);
    for (const file of (await readdir(folder)).filter((name) => name.endsWith('.deb'))) {
      await run('dpkg', ['-x', file, folder], options);
      await rm(join(folder, file));
    }
    // In one step, so that test files that fetch at the same time never see half of it; whoever comes second is not needed.
    await rename(folder, cacheFolder).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') throw error;
    });
  } catch (cause) {
    throw new Error('no Redis: install redis-server or valkey-server, or set REDIS_URL to one that runs', { cause });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
