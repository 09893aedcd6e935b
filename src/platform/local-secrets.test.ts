import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, beforeEach, test } from 'node:test';
import { localSecret } from './local-secrets.ts';

let dataDir: string;
const made: string[] = [];
beforeEach(() => {
  const folder = mkdtempSync(join(tmpdir(), 'iora-secrets-'));
  made.push(folder);
  dataDir = join(folder, 'data');
});
after(() => {
  for (const folder of made) rmSync(folder, { recursive: true, force: true });
});

const mode = (path: string) => (statSync(path).mode & 0o777).toString(8);

test('a secret is made once, kept, and different from every other', () => {
  const first = localSecret(dataDir, 'key-pepper');
  assert.equal(first.secret.length, 32);
  assert.equal(first.made, true);
  const again = localSecret(dataDir, 'key-pepper');
  assert.deepEqual([again.made, again.secret], [false, first.secret]);
  assert.notDeepEqual(localSecret(dataDir, 'data-keys').secret, first.secret);
});

test('only its owner may read it, whatever the umask and whoever made the folder', () => {
  const before = process.umask(0);
  try {
    mkdirSync(join(dataDir, 'secrets'), { recursive: true, mode: 0o777 });
    const { file } = localSecret(dataDir, 'key-pepper');
    assert.equal(mode(file), '600');
    assert.equal(mode(join(dataDir, 'secrets')), '700');
  } finally {
    process.umask(before);
  }
  assert.deepEqual(readdirSync(join(dataDir, 'secrets')), ['key-pepper'], 'no draft is left');
});

test('a damaged file is refused and left alone, never replaced', () => {
  const { file } = localSecret(dataDir, 'key-pepper');
  for (const damage of ['', 'x', readFileSync(file, 'utf8').slice(0, 20), `${readFileSync(file, 'utf8')}AAAA`]) {
    writeFileSync(file, damage);
    assert.throws(() => localSecret(dataDir, 'key-pepper'), /damaged: restore it from a backup/);
    assert.equal(readFileSync(file, 'utf8'), damage);
  }
});

test('processes that ask at the same moment get the same secret, and one of them made it', async () => {
  const script = `
    import { localSecret } from ${JSON.stringify(new URL('local-secrets.ts', import.meta.url).href)};
    process.stdin.once('data', () => {
      const { secret, made } = localSecret(${JSON.stringify(dataDir)}, 'key-pepper');
      process.stdout.write(JSON.stringify([secret.toString('hex'), made]));
      process.exit(0);
    });
    process.stderr.write('ready');`;
  const children = Array.from({ length: 4 }, () => spawn(process.execPath, ['--input-type=module', '-e', script]));
  await Promise.all(children.map((child) => once(child.stderr, 'data')));
  const answers = children.map((child) => text(child.stdout));
  for (const child of children) child.stdin.write('go');
  const results = (await Promise.all(answers)).map((answer) => JSON.parse(answer) as [string, boolean]);
  assert.equal(new Set(results.map(([secret]) => secret)).size, 1);
  assert.equal(results.filter(([, isMaker]) => isMaker).length, 1);
  assert.deepEqual(readdirSync(join(dataDir, 'secrets')), ['key-pepper']);
});

test('a folder that cannot be written says so', () => {
  writeFileSync(dataDir, 'a file where the folder should be');
  assert.throws(() => localSecret(dataDir, 'key-pepper'), { code: 'ENOTDIR' });
});
