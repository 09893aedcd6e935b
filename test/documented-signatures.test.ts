// What the pages on signatures and leaked keys show is run here as it stands there.
import assert from 'node:assert/strict';
import { execFile, spawnSync } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { generateKey, keyPattern, parseKey } from '../src/lib/key-format.ts';
import { type HttpApplication, startHttpApplication } from './support/http-application.ts';
import { type TestCluster, testCluster } from './support/postgres.ts';

const KEYS = 500;
const SIGNER = { keyId: 'scanner-1', secret: randomBytes(32) };

let cluster: TestCluster;
let server: HttpApplication;
let folder: string;
let signatures: string;
let leaks: string;
let rule: string;
before(async () => {
  const read = (path: string) => readFile(new URL(`../${path}`, import.meta.url), 'utf8');
  signatures = await read('docs/operations/service-signatures.md');
  leaks = await read('docs/operations/leaked-keys.md');
  rule = await read('ops/gitleaks/iora.toml');
  folder = await mkdtemp(join(tmpdir(), 'iora-signatures-'));
  cluster = await testCluster();
  server = await startHttpApplication(await cluster.database(), {
    settings: { SERVICE_SECRETS: `scanner:${SIGNER.keyId}:${SIGNER.secret.toString('base64')}` },
  });
});
after(async () => {
  await server.close();
  await cluster.stop();
  await rm(folder, { recursive: true, force: true });
});

/** The blocks of a page in that language that hold the text. */
function blocks(page: string, language: string, text: string): string[] {
  return [...page.matchAll(/^```(\w+)\n(.*?)^```$/gms)]
    .filter(([, name, block]) => name === language && block?.includes(text))
    .map(([, , block = '']) => block);
}

const only = (found: readonly string[]) => {
  assert.equal(found.length, 1);
  return found[0] ?? '';
};

test('the published expression and the rule are those that keys are made by', () => {
  const [, published] = /^regex = '''(.+)'''$/m.exec(rule) ?? [];
  assert.equal(published, keyPattern);
  const shown = only(blocks(leaks, 'toml', 'regex'));
  for (const line of shown.trim().split('\n')) assert.ok(rule.split('\n').includes(line), line);
  assert.equal(only(blocks(leaks, 'text', 'iora_pk_')).trim(), keyPattern);
});

/** What looks like a key from afar and is none. */
function nearMisses(key: string): string[] {
  return [
    key.slice(0, -1),
    key.slice(1),
    key.replace('iora_pk_', 'iora_sk_'),
    key.replace('iora_pk_', 'IORA_PK_'),
    key.replace(/_(?:live|test)_/, '_prod_'),
    key.replace(/_(?:live|test)_/, '_'),
    `${key.slice(0, 30)}-${key.slice(31)}`,
    `${key.slice(0, 30)}\n${key.slice(30)}`,
    key.replaceAll('_', '-'),
  ];
}

test('the expression finds every key in any surroundings, whole, and nothing that only resembles one', () => {
  const expression = new RegExp(keyPattern, 'g');
  for (let made = 0; made < KEYS; made += 1) {
    const key = generateKey(made % 2 === 0 ? 'live' : 'test');
    for (const text of [
      key,
      `KEY=${key}\n`,
      `"${key}"`,
      `\\n${key}`,
      `x${key}x`,
      `https://a/?k=${key}&b=1`,
      `${key},${key}`,
    ]) {
      const found = text.match(expression) ?? [];
      assert.ok(found.length > 0 && found.every((match) => match === key), text);
    }
    for (const text of nearMisses(key)) assert.equal(text.match(expression), null, text);
  }
});

test('the program that tells a key from a chance match does', async () => {
  const file = join(folder, 'is-key.mjs');
  await writeFile(file, only(blocks(leaks, 'js', 'isKey')));
  const { isKey } = (await import(file)) as { isKey: (text: string) => boolean };
  for (let made = 0; made < KEYS; made += 1) {
    const key = generateKey(made % 2 === 0 ? 'live' : 'test');
    assert.equal(isKey(key), true, key);
    const chance = `iora_pk_live_${randomBytes(64).toString('base64').replace(/\W/g, '').padEnd(49, '0').slice(0, 49)}`;
    for (const text of [...nearMisses(key), chance, `${key.slice(0, -1)}${key.endsWith('z') ? 'y' : 'z'}`]) {
      assert.equal(isKey(text), parseKey(text) !== null, text);
    }
  }
});

const missing = ['bash', 'openssl', 'curl'].filter((tool) => spawnSync(tool, ['--version']).error !== undefined);

/** Runs the functions of the page and then those words, as somebody would who follows it. */
async function shell(words: string, variables: Record<string, string> = {}): Promise<Record<string, unknown>> {
  const file = join(folder, 'secret');
  await writeFile(file, `${SIGNER.secret.toString('base64')}\n`, { mode: 0o600 });
  const script = `set -euo pipefail\n${only(blocks(signatures, 'sh', 'iora_call()'))}\n${words}`;
  const settings = { IORA_URL: server.url, IORA_KEY_ID: SIGNER.keyId, IORA_SECRET_FILE: file };
  const { stdout } = await promisify(execFile)('bash', ['-c', script], {
    env: { PATH: process.env['PATH'] ?? '', ...settings, ...variables },
  });
  return JSON.parse(stdout) as Record<string, unknown>;
}

test('the shell functions sign calls that are accepted', {
  skip: missing.length > 0 && `without ${missing}`,
}, async () => {
  const lines = only(blocks(signatures, 'sh', 'iora_call POST'))
    .trim()
    .split('\n');
  assert.equal(lines.length, 2);
  const { ownerId } = await server.iora.session('founder@example.com', `t-${randomUUID()}`);
  const price = await shell(lines[0] ?? '', { tenant: ownerId });
  assert.equal(price['symbol'], 'BTC', JSON.stringify(price));
  const health = await shell(lines[1] ?? '');
  assert.ok('postgresql' in health, 'the detail is for whoever signs');
});

test('the report of a leaked key in the shell cuts it off', {
  skip: missing.length > 0 && `without ${missing}`,
}, async () => {
  const owner = await server.iora.session(`${randomUUID()}@example.com`);
  const { key } = await server.iora.output<{ key: string }>('keys.create', owner, { name: 'k' });
  const line = only(blocks(leaks, 'sh', 'iora_call POST /leaks'));
  const answer = await shell(line, { found: key });
  const shown = JSON.parse(only(blocks(leaks, 'json', 'results'))) as Record<string, unknown>;
  assert.deepEqual(answer['results'], shown['results']);
  assert.deepEqual(Object.keys(answer), Object.keys(shown));
  assert.equal((await server.iora.bearer(key)).key?.leaked, true);
});
