// Looking at keys from the command line, beside a real server: what a key is, and which peppers are still needed.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { generateKey } from '../src/lib/key-format.ts';
import { runCli } from './support/cli-process.ts';
import { startTestServer, type TestServer } from './support/server.ts';
import { cleanEnvironment, startServerProcess } from './support/server-process.ts';
import { issueToken } from './support/token.ts';

let server: TestServer;
before(async () => {
  server = await startTestServer();
});
after(() => server.stop());

interface Made {
  readonly id: string;
  readonly key: string;
  readonly keyPrefix: string;
}

async function api<T>(url: string, session: string, path: string, body: unknown = {}, method = 'POST'): Promise<T> {
  const response = await fetch(`${url}${path}`, {
    method,
    headers: { authorization: `Bearer ${session}`, 'content-type': 'application/json' },
    ...(method === 'DELETE' ? {} : { body: JSON.stringify(body) }),
  });
  assert.ok(response.ok, await response.clone().text());
  return (await response.json()) as T;
}

/** What the command says of that text, which must never stand in what it says. */
async function inspect(input: string) {
  const run = await runCli(['keys', 'inspect', '--json'], { IORA_DATA_DIR: server.dataDir }, input);
  const key = input.trim();
  assert.ok(key === '' || !`${run.stdout}${run.stderr}`.includes(key), 'the key is not printed');
  return { ...run, said: run.stdout === '' ? {} : JSON.parse(run.stdout) };
}

test('a key is told apart in every state, by its secret alone', async () => {
  const session = await server.session({ email: 'ada@example.com', org: 'inspected' });
  const create = (body: Record<string, unknown> = {}) =>
    api<Made>(server.baseUrl, session, '/user/api-keys', { name: 'backend', ...body });
  const made = await create({ environment: 'test', allowedCidrs: ['192.0.2.0/24'] });
  const fresh = await inspect(`  ${made.key}\r\n`);
  assert.equal(fresh.exitCode, 0);
  const { ownerId, createdBy, ...rest } = fresh.said;
  assert.deepEqual(rest, {
    wellFormed: true,
    state: 'active',
    environment: 'test',
    keyPrefix: made.keyPrefix,
    id: made.id,
    name: 'backend',
    expiresAt: null,
    pepperVersion: 1,
    lastUsedAt: null,
    allowedCidrs: ['192.0.2.0/24'],
  });
  assert.match(ownerId, /^org_/);
  assert.match(createdBy, /^user_/);

  const rotated = await api<Made>(server.baseUrl, session, `/user/api-keys/${made.id}/rotate`, { overlapSeconds: 600 });
  const old = (await inspect(made.key)).said;
  assert.deepEqual([old.state, (await inspect(rotated.key)).said.state], ['rotated out', 'active']);
  assert.ok(new Date(old.expiresAt).getTime() > Date.now());
  await api(server.baseUrl, session, `/user/api-keys/${made.id}/rotate`, { overlapSeconds: 0 });
  assert.equal((await inspect(rotated.key)).said.state, 'ended');

  const states: readonly [string, string][] = [
    ['leaked', 'UPDATE api_keys SET leaked_at = now() WHERE family_id = $1'],
    ['expired', 'UPDATE api_key_families SET expires_at = now() WHERE id = $1'],
    ['revoked', 'UPDATE api_key_families SET revoked_at = now() WHERE id = $1'],
    [
      'owner suspended',
      'UPDATE organizations SET suspended_at = now() WHERE id = (SELECT owner_id FROM api_key_families WHERE id = $1)',
    ],
  ];
  for (const [state, change] of states) {
    const { id, key } = await create();
    await server.sql(change, [id]);
    const { exitCode, said } = await inspect(key);
    assert.deepEqual([exitCode, said.state, said.id], [0, state, id]);
  }
});

test('what nobody made exits 1 and says why, nothing at all exits 2', async () => {
  const stranger = await inspect(generateKey('live'));
  assert.deepEqual([stranger.exitCode, stranger.said.wellFormed, stranger.said.state], [1, true, 'unknown']);
  assert.match(stranger.stderr, /nobody here made it/);
  for (const text of [`${generateKey('live').slice(0, -1)}_`, 'not a key', `${'x'.repeat(100_000)}`]) {
    const mistyped = await inspect(text);
    assert.deepEqual([mistyped.exitCode, mistyped.said.wellFormed], [1, false]);
    assert.match(mistyped.stderr, /shape and checksum/);
  }
  for (const nothing of ['', ' \n\n']) {
    const { exitCode, stdout, stderr } = await inspect(nothing);
    assert.deepEqual([exitCode, stdout], [2, '']);
    assert.match(stderr, /^iora: give the key on standard input[^\n]*\n$/);
  }
  const argued = await runCli(['keys', 'inspect', 'iora_pk_live_x'], { IORA_DATA_DIR: server.dataDir });
  assert.equal(argued.exitCode, 2, 'a key is never taken as an argument');
});

test('a terminal as standard input is refused, for it would show the key', {
  skip: process.platform !== 'linux' || !existsSync('/usr/bin/script'),
}, async () => {
  const cli = fileURLToPath(new URL('../src/main/cli.ts', import.meta.url));
  // `script` of util-linux runs it at a terminal of its own, where nobody types anything.
  const child = spawn('/usr/bin/script', ['-qec', `"${process.execPath}" "${cli}" keys inspect`, '/dev/null'], {
    env: cleanEnvironment({ IORA_DATA_DIR: server.dataDir }),
    stdio: ['pipe', 'pipe', 'inherit'],
    timeout: 60_000,
    killSignal: 'SIGKILL',
  });
  const [exit, output] = [once(child, 'close'), text(child.stdout)];
  assert.match(await output, /^iora: [^\n]*iora keys inspect < FILE/);
  assert.equal((await exit)[0], 2);
});

test('commands of both kinds stand under their noun', async () => {
  const help = await runCli(['keys', '--help'], { IORA_DATA_DIR: server.dataDir });
  for (const verb of ['inspect', 'peppers', 'create', 'list', 'get <id>', 'rotate <id>', 'revoke-all']) {
    assert.ok(help.stdout.includes(`\n  ${verb} `), verb);
  }
  const all = await runCli(['--help'], { IORA_DATA_DIR: server.dataDir });
  assert.match(all.stdout, /^ {2}keys +inspect, peppers, create,/m);
});

test('a pepper is changed without an outage: keys move as they are used, and the count says when the old one may go', async () => {
  const dataDir = await mkdtemp(join(tmpdir(), 'iora-peppers-'));
  const [one, two] = [1, 2].map((version) => `${version}:${randomBytes(32).toString('base64')}`);
  const settings = (peppers: string) => ({ IORA_DATA_DIR: dataDir, KEY_PEPPER: peppers });
  const serve = async <T>(peppers: string, work: (url: string) => Promise<T>): Promise<T> => {
    const running = await startServerProcess(settings(peppers));
    try {
      return await work(running.url);
    } finally {
      await running.stop();
    }
  };
  const use = async (url: string, key: string) =>
    (await fetch(`${url}/user/api-keys/current`, { headers: { authorization: `Bearer ${key}` } })).status;
  const count = async (peppers: string) => {
    const { exitCode, stdout, stderr } = await runCli(['keys', 'peppers', '--json'], settings(peppers));
    const rows: { version: number; liveSecrets: number; configured: boolean }[] = JSON.parse(stdout).peppers;
    return { exitCode, stderr, rows: rows.map((row) => [row.version, row.liveSecrets, row.configured]) };
  };
  try {
    const keys = await serve(`${one}`, async (url) => {
      const session = await issueToken(dataDir, { email: 'ada@example.com' });
      const create = () => api<Made>(url, session, '/user/api-keys', { name: 'old' });
      const [first, second, revoked] = [await create(), await create(), await create()];
      await api(url, session, `/user/api-keys/${revoked.id}`, undefined, 'DELETE');
      return [first.key, second.key] as const;
    });
    await serve(`${two},${one}`, async (url) => {
      assert.deepEqual((await count(`${two},${one}`)).rows, [
        [1, 2, true],
        [2, 0, true],
      ]);
      assert.equal(await use(url, keys[0]), 200);
      assert.deepEqual(await count(`${two},${one}`), {
        exitCode: 0,
        stderr: '',
        rows: [
          [1, 1, true],
          [2, 1, true],
        ],
      });
      const early = await count(`${two}`);
      assert.deepEqual([early.exitCode, early.rows[0]], [1, [1, 1, false]]);
      assert.match(early.stderr, /pepper 1, which is not configured/);
      assert.equal(await use(url, keys[1]), 200);
      assert.deepEqual((await count(`${two}`)).rows, [[2, 2, true]]);
    });
    await serve(`${two}`, async (url) => {
      for (const key of keys) assert.equal(await use(url, key), 200);
    });
  } finally {
    await rm(dataDir, { recursive: true, force: true });
  }
});
