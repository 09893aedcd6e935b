// The migrations of this release as files: numbered SQL with a head that names the oldest release able to run on the
// schema afterwards, an up part and a down part.
import { createHash } from 'node:crypto';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import packageFile from '../../package.json' with { type: 'json' };

export interface MigrationFile {
  /** Without the ending, as in `001_create_users`. */
  readonly name: string;
  readonly path: string;
  readonly up: string;
  readonly down: string;
  readonly sha256: string;
  readonly oldestRelease: string;
}

/** What stands between the database and this release, in one line with the next step. */
export class MigrationError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'MigrationError';
  }
}

/** What was asked for as the name of a migration cannot be one. */
export class MigrationNameError extends MigrationError {}

/** Where the migrations of this release are. */
export const migrationsDirectory = fileURLToPath(new URL('../../migrations', import.meta.url));
/** The version of this release, `X.Y.Z`. */
export const release = packageFile.version;

/** Returns the migrations of `directory` in the order of their numbers. Throws MigrationError for a file that is none. */
export async function readMigrations(directory: string): Promise<MigrationFile[]> {
  const names = (await readdir(directory)).filter((name) => !name.startsWith('.')).sort();
  const files = await Promise.all(names.map((name) => readMigration(directory, name)));
  const twins = files.find((file, index) => file.name.slice(0, 3) === files[index - 1]?.name.slice(0, 3));
  if (twins !== undefined)
    throw new MigrationError(`two migrations have the number of ${twins.name}: renumber the newer one`);
  return files;
}

/**
 * Makes the skeleton of the next migration and returns its path. Throws MigrationNameError for a name that is not
 * lower-case words joined by underscores.
 */
export async function newMigration(name: string, directory = migrationsDirectory): Promise<string> {
  if (!/^[a-z][a-z0-9]*(_[a-z0-9]+)*$/.test(name)) {
    throw new MigrationNameError(
      `"${name}" cannot name a migration: use lower-case words joined by _, as in create_users`,
    );
  }
  const files = await readMigrations(directory);
  const number = Number(files.at(-1)?.name.slice(0, 3) ?? 0) + 1;
  const path = join(directory, `${String(number).padStart(3, '0')}_${name}.sql`);
  await writeFile(path, skeleton, { flag: 'wx' });
  return path;
}

const skeleton = `-- oldest-release: ${release}
-- What it is for. (oldest-release: the oldest one that still runs once this is applied.)

-- Up Migration

-- Down Migration

`;

async function readMigration(directory: string, fileName: string): Promise<MigrationFile> {
  const path = join(directory, fileName);
  const name = /^(\d{3}_[a-z0-9_]+)\.sql$/.exec(fileName)?.[1];
  if (name === undefined)
    throw new MigrationError(`${path} is no migration: its name must be like 001_create_users.sql`);
  // A checkout that ends lines its own way is no edit.
  const text = (await readFile(path, 'utf8')).replaceAll('\r\n', '\n');
  const [head, up, down, ...rest] = text.split(/^-- (?:Up|Down) Migration\n/m);
  const oldestRelease = /^-- oldest-release: (\d+\.\d+\.\d+)$/m.exec(head ?? '')?.[1];
  const isInOrder = text.indexOf('\n-- Up Migration\n') < text.indexOf('\n-- Down Migration\n');
  if (up === undefined || down === undefined || oldestRelease === undefined || rest.length > 0 || !isInOrder) {
    throw new MigrationError(
      `${path} must have the lines "-- oldest-release: X.Y.Z", "-- Up Migration" and "-- Down Migration", once each, in this order`,
    );
  }
  return { name, path, up, down, sha256: createHash('sha256').update(text).digest('hex'), oldestRelease };
}
