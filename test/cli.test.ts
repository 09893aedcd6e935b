import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { chmod, copyFile, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { generateKey } from '../src/lib/key-format.ts';
import { describeOperations } from '../src/main/operation-list.ts';
import { version } from '../src/main/release.ts';
import { attachEmbeddedPostgres } from '../src/platform/embedded-postgres.ts';
import { isOfOperator, offered, operationSpec } from '../src/transports/cli/operation-commands.ts';
import { processCommands } from '../src/transports/cli/process-commands.ts';
import { type CliRun, runCli, startCli } from './support/cli-process.ts';
import { startTestServer, type TestServer } from './support/server.ts';

/** The command line as people run it: a process of its own, beside a server and without one. */

const ADA = ['--user', 'ada@example.com'];
const KEY_ID = '0198f2a0-7c11-7b3a-9d4e-2f6a1c0b5e77';
const iora = fileURLToPath(new URL('../bin/iora', import.meta.url));
const run = promisify(execFile);

let folder: string;
let server: TestServer;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'iora-cli-'));
  server = await startTestServer();
});

after(async () => {
  await server.stop();
  await rm(folder, { recursive: true, force: true });
});

function beside(
  words: readonly string[],
  settings: Readonly<Record<string, string>> = {},
  input?: string,
): Promise<CliRun> {
  return runCli(words, { IORA_DATA_DIR: server.dataDir, ...settings }, input);
}

/** The output of a command that must succeed, and say nothing on standard error. */
async function json(words: readonly string[], settings: Readonly<Record<string, string>> = {}) {
  const { exitCode, stdout, stderr } = await beside([...words, '--json'], settings);
  assert.deepEqual([exitCode, stderr], [0, ''], words.join(' '));
  return JSON.parse(stdout);
}

function assertOneLine(result: CliRun, expected: RegExp, exitCode: number, about: string): void {
  assert.equal(result.exitCode, exitCode, `${about}: ${result.stderr}`);
  assert.match(result.stderr, /^[^\n]+\n$/, about);
  assert.match(result.stderr, expected, about);
}

test('a key made here works over HTTP, and a revocation here is in force on the server when it is answered', async () => {
  const made = await json([
    'keys',
    'create',
    ...ADA,
    '--name',
    'from the shell',
    '--permissions',
    'tools:read,keys:read',
  ]);
  assert.deepEqual(made.permissions, ['tools:read', 'keys:read']);
  const ask = () => fetch(`${server.baseUrl}/user/api-keys`, { headers: { authorization: `Bearer ${made.key}` } });
  assert.equal((await ask()).status, 200);

  const revoked = await json(['keys', 'revoke', made.id, ...ADA]);
  assert.deepEqual([revoked.effectiveOn, revoked.of], [1, 1]);
  assert.equal((await ask()).status, 401);

  const shown = await beside(['keys', 'list', ...ADA]);
  assert.match(shown.stdout, /^id +name +keyPrefix/);
  assert.match(shown.stdout, /from the shell .*revoked/);
  const actors = await server.sql(`select distinct actor_type from audit_logs where action like 'api_key_%'`);
  assert.deepEqual(actors, [{ actor_type: 'operator' }]);
  const inOrganization = await json(['keys', 'list', ...ADA, '--org', 'acme']);
  assert.deepEqual(inOrganization.items, []);
});

test('a revocation waits until it can hear the instances, also when that takes a second try', async () => {
  const made = await json(['keys', 'create', ...ADA, '--name', 'soon revoked']);
  const database = await attachEmbeddedPostgres({ dataDir: server.dataDir });
  let connections = 0;
  const path = createServer((socket) => {
    connections += 1;
    if (connections === 1) return void socket.destroy();
    const onward = connect(database.port, '127.0.0.1');
    for (const end of [socket, onward]) end.on('error', () => undefined);
    socket.pipe(onward).pipe(socket);
  }).listen(0, '127.0.0.1');
  await once(path, 'listening');
  try {
    const direct = new URL(database.url('iora_api'));
    direct.port = String((path.address() as AddressInfo).port);
    const settings = { DATABASE_URL: database.url('iora_api'), DATABASE_DIRECT_URL: direct.href, LOG_LEVEL: 'error' };
    const revoked = await json(['keys', 'revoke', made.id, ...ADA], settings);
    assert.deepEqual([revoked.effectiveOn, revoked.of, connections], [1, 1, 2]);
  } finally {
    path.close();
    await database.stop();
  }
});

test('a call that costs something is metered, and on the books before the command ends', async () => {
  const price = await json(['market', 'get-price', '--user', 'grace@example.com', '--symbol', 'btc']);
  assert.equal(price.symbol, 'BTC');
  const usage = await json(['usage', 'get', '--user', 'grace@example.com']);
  assert.deepEqual(usage.byEndpoint, [{ operation: 'market.get_price', calls: 1, cost: 1, errors: 0 }]);
});

test('a refusal is the same problem as over HTTP', async () => {
  const session = await server.session({ email: 'ada@example.com' });
  const http = async (path: string, init: RequestInit = {}) => {
    const headers = { authorization: `Bearer ${session}`, 'content-type': 'application/json' };
    return (await fetch(`${server.baseUrl}${path}`, { ...init, headers })).json();
  };
  const cases = [
    { words: ['keys', 'create'], asked: () => http('/user/api-keys', { method: 'POST', body: '{}' }) },
    {
      words: ['keys', 'create', '--name', 'x', '--requests-per-minute', 'ten'],
      asked: () => http('/user/api-keys', { method: 'POST', body: '{"name":"x","requestsPerMinute":"ten"}' }),
    },
    { words: ['keys', 'list', '--limit', '1000'], asked: () => http('/user/api-keys?limit=1000') },
    { words: ['keys', 'get', KEY_ID], asked: () => http(`/user/api-keys/${KEY_ID}`) },
    {
      words: ['market', 'get-price', '--symbol', 'BTX'],
      asked: () => http('/tools/get_price', { method: 'POST', body: '{"symbol":"BTX"}' }),
    },
  ];
  for (const { words, asked } of cases) {
    const result = await beside([...words, ...ADA, '--json']);
    assert.deepEqual([result.exitCode, result.stdout], [1, ''], words.join(' '));
    const { requestId, ...problem } = JSON.parse(result.stderr);
    const { requestId: other, ...expected } = (await asked()) as Record<string, unknown>;
    assert.notEqual(requestId, other);
    assert.deepEqual(problem, expected);
  }
  assertOneLine(await beside(['keys', 'create', ...ADA]), /^iora: --name: .*\(invalid_input\)\n$/, 1, 'for people');
});

test('who acts must be said, and said right', async () => {
  assertOneLine(await beside(['keys', 'list']), /say who acts: --user EMAIL/, 2, 'no user');
  assertOneLine(await beside(['keys', 'list', '--user', 'ada']), /--user must be an email/, 2, 'no email');
  assertOneLine(await beside(['keys', 'list', ...ADA, '--org', 'A B']), /--org must be lower-case/, 2, 'no slug');
});

test('auth token prints a token that the server takes, and needs no database', async () => {
  const result = await beside(['auth', 'token', '--user', 'Ada@example.com', '--org', 'acme', '--admin'], {
    DATABASE_URL: 'postgres://nobody@127.0.0.1:1/none',
  });
  assert.deepEqual([result.exitCode, result.stderr], [0, '']);
  const headers = { authorization: `Bearer ${result.stdout.trim()}` };
  assert.equal(result.stdout, `${result.stdout.trim()}\n`);
  assert.equal((await fetch(`${server.baseUrl}/user/api-keys`, { headers })).status, 200);

  const untouched = join(folder, 'token-only');
  assert.equal((await runCli(['auth', 'token', ...ADA], { IORA_DATA_DIR: untouched })).exitCode, 0);
  assert.deepEqual(await readdir(untouched), ['secrets']);
  assert.deepEqual(await readdir(join(untouched, 'secrets')), ['local-identity']);

  const production = { IORA_MODE: 'production', KEY_PEPPER: `1:${'A'.repeat(44)}`, DATA_KEYS: `1:${'B'.repeat(43)}=` };
  assertOneLine(await beside(['auth', 'token', ...ADA], production), /no local identity provider/, 1, 'production');
  const provider = { PUBLIC_URL: 'https://iora.test', OIDC_ISSUER: 'https://id.test', OIDC_AUDIENCE: 'iora' };
  assertOneLine(await beside(['auth', 'token', ...ADA], provider), /beside Clerk or an OIDC issuer/, 1, 'a provider');
  assertOneLine(await beside(['auth', 'token']), /--user EMAIL/, 2, 'no user');
});

test('config shows where settings come from and never a secret; problems end with 78', async () => {
  const pepperFile = join(folder, 'pepper');
  await writeFile(pepperFile, `1:${'C'.repeat(44)}\n`);
  const settings = { KEY_PEPPER_FILE: pepperFile, METRICS_TOKEN: 'never-to-be-shown', PORT: '7200' };
  const shown = await json(['config'], settings);
  const found = (name: string) => shown.settings.find((setting: { name: string }) => setting.name === name);
  assert.deepEqual(found('KEY_PEPPER'), { name: 'KEY_PEPPER', value: 'set', source: 'file' });
  assert.deepEqual(found('METRICS_TOKEN'), { name: 'METRICS_TOKEN', value: 'set', source: 'environment' });
  assert.deepEqual(found('DATABASE_URL'), { name: 'DATABASE_URL', value: 'not set', source: 'default' });
  assert.deepEqual(found('PORT'), { name: 'PORT', value: 7200, source: 'environment' });
  const text = (await beside(['config'], settings)).stdout;
  assert.doesNotMatch(text, /never-to-be-shown|CCCC/);
  assert.match(text, /^PORT +7200 +environment$/m);

  for (const words of [['config'], ['keys', 'list', ...ADA], ['health'], ['auth', 'token', ...ADA], ['serve']]) {
    const wrong = await beside(words, { PORT: 'x', LOG_LEVEL: 'loud' });
    assert.deepEqual([wrong.exitCode, wrong.stdout], [78, ''], words.join(' '));
    assert.match(wrong.stderr, /PORT[\s\S]*LOG_LEVEL/);
  }
  const mode = await beside(['health'], { DATABASE_URL: 'postgres://u@127.0.0.1/x?sslmode=prefer' });
  assert.equal(mode.exitCode, 78);
});

test('migrate: status, up to a name, dry run, up, down; a schema that is missing is named', async () => {
  await server.sql('create database migrated_here');
  const database = await attachEmbeddedPostgres({ dataDir: server.dataDir });
  const settings = { DATABASE_URL: database.url('postgres', 'migrated_here') };
  const names = async () => (await json(['migrate', 'status'], settings)) as { applied: unknown[]; pending: string[] };
  try {
    const all = (await names()).pending;
    assert.ok(all.length >= 11, `only ${all.length} migrations`);
    assertOneLine(await beside(['keys', 'list', ...ADA], settings), /run `iora migrate up`/, 1, 'no schema');
    assert.match(
      (await beside(['migrate', 'up', '--dry-run'], settings)).stdout,
      /^-- 001_create_users\n[\s\S]*CREATE TABLE users/,
    );
    assert.deepEqual((await names()).pending, all);

    assert.deepEqual((await json(['migrate', 'up', '--to', all[1] ?? ''], settings)).applied, all.slice(0, 2));
    assert.deepEqual((await json(['migrate', 'up'], settings)).applied, all.slice(2));
    assert.equal((await beside(['migrate', 'up', '--dry-run'], settings)).stdout, 'nothing to do\n');
    assert.deepEqual((await json(['keys', 'list', ...ADA], settings)).items, []);
    assert.deepEqual(await json(['migrate', 'down', '--count', '2'], settings), { reverted: all.slice(-2).reverse() });
    assert.deepEqual((await names()).pending, all.slice(-2));

    assertOneLine(await beside(['migrate', 'down', '--count', '0'], settings), /--count must be/, 2, 'count');
    assertOneLine(await beside(['migrate', 'up', '--to', 'nowhere'], settings), /no migration "nowhere"/, 1, 'to');
    assertOneLine(await beside(['migrate', 'new'], settings), /what the migration is for/, 2, 'no name');
    assertOneLine(await beside(['migrate', 'new', 'Not This'], settings), /cannot name a migration/, 2, 'bad name');
    assertOneLine(await beside(['migrate', 'new', 'Add-x'], settings), /cannot name a migration/, 2, 'dashes');
  } finally {
    await database.stop();
  }
});

/** Every command that needs the database, as it would be called. */
const needingDatabase: string[][] = [
  ...processCommands
    .map(([, spec]) => [...spec.words])
    .filter(([noun = '', verb]) => !['auth', 'config'].includes(noun) && verb !== 'new'),
  ...offered(describeOperations()).map((operation) => {
    const { words, positionals } = operationSpec(operation);
    return [
      ...words,
      ...positionals.map(() => KEY_ID),
      ...(isOfOperator(operation) ? [] : ADA),
      ...(words[1] === 'get-price' ? ['--symbol', 'BTC'] : []),
    ];
  }),
];

test('without a database that answers, every command that needs one says so on one line and ends', async (context) => {
  assert.ok(needingDatabase.length >= 13, `only ${needingDatabase.length} commands`);
  const open = new Set<Socket>();
  const silent = createServer((socket) => open.add(socket)).listen(0, '127.0.0.1');
  await once(silent, 'listening');
  const closed = createServer().listen(0, '127.0.0.1');
  await once(closed, 'listening');
  const [silentPort, closedPort] = [silent, closed].map((listener) => (listener.address() as AddressInfo).port);
  closed.close();
  try {
    for (const port of [closedPort, silentPort]) {
      const settings = { DATABASE_URL: `postgres://iora@127.0.0.1:${port}/iora`, DATABASE_STARTUP_TIMEOUT_MS: '0' };
      const left = [...needingDatabase];
      const inTurn = async () => {
        for (let words = left.shift(); words !== undefined; words = left.shift()) {
          // What looks at a key asks for it before anything else.
          const result = await beside(words, settings, generateKey('live'));
          assertOneLine(
            result,
            new RegExp(`^iora: PostgreSQL at 127.0.0.1:${port} cannot be used`),
            1,
            words.join(' '),
          );
          if (words[0] === 'health') assert.match(result.stdout, /^status: unhealthy\n/);
          else assert.equal(result.stdout, '', words.join(' '));
        }
      };
      await Promise.all([inTurn(), inTurn(), inTurn(), inTurn()]);
    }
  } finally {
    for (const socket of open) socket.destroy();
    silent.close();
  }
  context.diagnostic(`${needingDatabase.length} commands, each without a listener and with a silent one`);
});

test('on an empty folder a command runs the database itself, migrated, and takes it down again', async () => {
  const settings = { IORA_DATA_DIR: join(folder, 'empty') };
  const listed = await runCli(['keys', 'list', '--user', 'a@b.c'], settings);
  assert.deepEqual([listed.exitCode, listed.stdout], [0, 'none\n']);
  const both = await Promise.all(
    ['one', 'two'].map((name) => runCli(['keys', 'create', ...ADA, '--name', name], settings)),
  );
  for (const made of both) {
    assert.deepEqual([made.exitCode, made.stderr], [0, '']);
    assert.match(made.stdout, /^key: iora_pk_live_\w{49}$/m);
  }
  const after = await runCli(['keys', 'list', ...ADA, '--json'], settings);
  assert.deepEqual(
    JSON.parse(after.stdout)
      .items.map((key: { name: string }) => key.name)
      .sort(),
    ['one', 'two'],
  );
  assert.ok(!(await readdir(settings.IORA_DATA_DIR)).includes('postgres.lock'));
});

test('production on the embedded PostgreSQL is allowed, and said', async () => {
  const settings = {
    IORA_MODE: 'production',
    IORA_DATA_DIR: join(folder, 'production'),
    KEY_PEPPER: `1:${'A'.repeat(44)}`,
    DATA_KEYS: `1:${'B'.repeat(43)}=`,
  };
  const listed = await runCli(['keys', 'list', ...ADA], settings);
  assert.deepEqual([listed.exitCode, listed.stdout], [0, 'none\n']);
  const said = listed.stderr.split('\n').filter((line) => line.includes('with the embedded PostgreSQL below'));
  assert.equal(said.length, 1, listed.stderr);
  assert.match(said[0] ?? '', /IORA_MODE=production .*: set DATABASE_URL for a server of your own/);
});

test('SIGINT in the middle ends the command in order, its database included', async () => {
  const dataDir = join(folder, 'interrupted');
  const settings = { IORA_DATA_DIR: dataDir, LOG_LEVEL: 'info' };
  const starting = startCli(['keys', 'list', ...ADA], settings);
  await starting.said('embedded_postgres.initialising');
  starting.child.kill('SIGINT');
  const { exitCode, stdout, stderr } = await starting.ended;
  assert.deepEqual([exitCode, stdout], [130, '']);
  assert.match(stderr, /embedded_postgres\.stopped[\s\S]*iora: interrupted\n$/);
  assert.ok(!(await readdir(dataDir)).includes('postgres.lock'));

  const silent = createServer().listen(0, '127.0.0.1');
  await once(silent, 'listening');
  const waiting = startCli(['health'], {
    DATABASE_URL: `postgres://u@127.0.0.1:${(silent.address() as AddressInfo).port}/x`,
  });
  const [socket] = (await once(silent, 'connection')) as [Socket];
  waiting.child.kill('SIGTERM');
  assertOneLine(await waiting.ended, /^iora: interrupted\n$/, 143, 'while connecting');
  socket.destroy();
  silent.close();
});

test('serve runs the server, and a health check tells when its database hangs', async () => {
  const settings = { IORA_DATA_DIR: join(folder, 'served'), PORT: '0' };
  const serving = startCli(['serve', '--json'], settings);
  await serving.said('"url"');
  const healthy = await runCli(['health', '--json'], settings);
  assert.deepEqual([healthy.exitCode, healthy.stderr], [0, '']);
  const { status, postgresql } = JSON.parse(healthy.stdout);
  assert.deepEqual([status, postgresql.status, postgresql.replication.inRecovery], ['healthy', 'healthy', false]);

  const lock = JSON.parse(await readFile(join(settings.IORA_DATA_DIR, 'postgres.lock'), 'utf8'));
  process.kill(lock.postmasterPid, 'SIGSTOP');
  try {
    const hung = await runCli(['health'], settings);
    assertOneLine(hung, /does not answer/, 1, 'hung');
    assert.match(hung.stdout, /^status: unhealthy\n/);
  } finally {
    process.kill(lock.postmasterPid, 'SIGCONT');
  }
  serving.child.kill('SIGTERM');
  const { exitCode, stdout } = await serving.ended;
  assert.equal(exitCode, 0);
  assert.match(JSON.parse(stdout).url, /^http:\/\/127\.0\.0\.1:\d+$/);
});

test('bin/iora runs through links, passes words and exit codes on, and says which Node it needs', async () => {
  const link = join(folder, 'link');
  await symlink(iora, join(folder, 'first'));
  await symlink('first', link);
  const path = { PATH: `${dirname(process.execPath)}:${process.env['PATH']}` };
  assert.deepEqual(await run(link, ['--version'], { cwd: '/', env: path }), { stdout: `${version}\n`, stderr: '' });
  await assert.rejects(run(link, ['keys', 'a b'], { env: path }), { code: 2, stderr: /unknown command 'a b'/ });

  // A checkout without node_modules, where the PATH has the shell's tools and a Node that is too old.
  const bare = join(folder, 'bare checkout');
  await mkdir(join(bare, 'bin'), { recursive: true });
  await mkdir(join(bare, 'tools'));
  await copyFile(iora, join(bare, 'bin/iora'));
  for (const tool of ['readlink', 'dirname']) {
    const { stdout } = await run('/bin/sh', ['-c', `command -v ${tool}`]);
    await symlink(stdout.trim(), join(bare, 'tools', tool));
  }
  const env = { PATH: join(bare, 'tools') };
  const refused = {
    code: 1,
    stdout: '',
    stderr: `iora: needs Node 24 or newer: install it, or run "npm ci" in ${bare}\n`,
  };
  await assert.rejects(run(join(bare, 'bin/iora'), ['--version'], { env }), refused);
  await writeFile(join(bare, 'tools/node'), '#!/bin/sh\necho v20.19.2\n');
  await chmod(join(bare, 'tools/node'), 0o755);
  await assert.rejects(run(join(bare, 'bin/iora'), ['--version'], { env }), refused);
});

test('every flag and positional argument says what it is for', () => {
  const specs = [...processCommands.map(([, spec]) => spec), ...offered(describeOperations()).map(operationSpec)];
  const silent = specs.flatMap(({ words, options, positionals }) => [
    ...options.filter(({ description }) => !/^[\w/]/.test(description)).map(({ flags }) => [...words, flags].join(' ')),
    ...positionals.filter(({ description }) => description === '').map(({ name }) => [...words, name].join(' ')),
  ]);
  assert.deepEqual(silent, []);
});

test('the list of operations is for reading: no command is taken twice, and running one throws', async () => {
  const operations = describeOperations();
  const taken = new Set(offered(operations).map((operation) => operationSpec(operation).words.join(' ')));
  for (const [, { words }] of processCommands) assert.ok(!taken.has(words.join(' ')), words.join(' '));
  const list = operations.find(({ name }) => name === 'keys.list');
  await assert.rejects(async () => list?.run({} as never, { limit: 1 }), /made to be described/);
});
