import { randomBytes } from 'node:crypto';
import { chmodSync, linkSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** Secrets that development mode makes for itself, so that a first run needs no configuration. */

const SECRET_BYTES = 32;

/**
 * The secret of that name below `<dataDir>/secrets`, made on first use (32 random bytes, file mode 0600).
 * Two processes asking at once get the same one. Throws when the folder cannot be written or the file is damaged.
 */
export function localSecret(dataDir: string, name: string): { secret: Buffer; file: string; made: boolean } {
  const folder = join(dataDir, 'secrets');
  const file = join(folder, name);
  const found = readSecret(file);
  if (found !== undefined) return { secret: found, file, made: false };
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  chmodSync(folder, 0o700);
  // Written whole beside its place and linked there, so that a reader never sees half a secret and the first one wins.
  const draft = `${file}.${process.pid}.${randomBytes(4).toString('hex')}`;
  writeFileSync(draft, `${randomBytes(SECRET_BYTES).toString('base64')}\n`, { mode: 0o600, flush: true });
  let made = true;
  try {
    linkSync(draft, file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    made = false;
  } finally {
    rmSync(draft, { force: true });
  }
  const secret = readSecret(file);
  if (secret === undefined) throw new Error(`${file} vanished while it was being made`);
  return { secret, file, made };
}

function readSecret(file: string): Buffer | undefined {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  const secret = Buffer.from(text.trim(), 'base64');
  // Decoding alone would pass over whatever is no base64.
  if (secret.length !== SECRET_BYTES || secret.toString('base64') !== text.trim()) {
    throw new Error(`${file} is damaged: restore it from a backup, since what it protects cannot be read without it`);
  }
  return secret;
}
