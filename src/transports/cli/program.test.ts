import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AppError } from '../../kernel/errors.ts';
import { InterruptedError, UsageError } from './command-errors.ts';
import type { OperationRequest } from './operation-commands.ts';
import type { ProcessActions } from './process-commands.ts';
import { type CliParts, runCli } from './program.ts';
import { elsewhere, everyKind, paged } from './test-operations.ts';

const ID = '0198f2a0-7c11-7b3a-9d4e-2f6a1c0b5e77';

interface Run {
  readonly exitCode: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
  readonly requests: readonly OperationRequest[];
  readonly loaded: boolean;
}

async function cli(words: readonly string[], change: Partial<CliParts> = {}): Promise<Run> {
  const said = { stdout: '', stderr: '' };
  const requests: OperationRequest[] = [];
  let loaded = false;
  const refuse = () => Promise.reject(new Error('not asked for in this test'));
  const actions: ProcessActions = {
    serve: () => Promise.resolve(undefined),
    migrateUp: () => Promise.resolve({ output: { applied: ['001_a'] } }),
    migrateDown: refuse,
    migrateStatus: refuse,
    migrateNew: ({ positionals }) => Promise.resolve({ output: { path: positionals[0] }, text: 'as text\n' }),
    authToken: refuse,
    keysInspect: refuse,
    keysPeppers: () => Promise.resolve({ output: { peppers: [] } }),
    health: () =>
      Promise.resolve({ output: { status: 'unhealthy' }, failure: new AppError('unavailable', 'It is away.') }),
    config: refuse,
  };
  const exitCode = await runCli(words, {
    version: '1.2.3',
    actions,
    loadOperations() {
      loaded = true;
      return Promise.resolve([everyKind, paged, elsewhere]);
    },
    async call(request, answer) {
      requests.push(request);
      await answer({ id: ID, key: 'secret' });
    },
    describeFailure: () => Promise.resolve({ message: 'described', exitCode: 78 }),
    write(stream, text) {
      said[stream] += text;
      return Promise.resolve();
    },
    ...change,
  });
  return { exitCode, ...said, requests, loaded };
}

const act = ['things', 'make-one', '--user', 'ada@example.com'];

test('flags and positional arguments become the input, and the answer is all there is on standard output', async () => {
  const words = [...act, '--org', 'acme', ID, '--name', '-dash', '--per-minute', 'null', '--tags', 'a,b', '--tags=c'];
  const run = await cli([...words, '--no-loud']);
  assert.equal(run.exitCode, 0);
  assert.equal(run.stdout, `id: ${ID}\nkey: secret\n`);
  assert.equal(run.stderr, '');
  const [request] = run.requests;
  assert.deepEqual(request?.input, { id: ID, name: '-dash', perMinute: null, tags: ['a', 'b', 'c'], loud: false });
  assert.equal(request?.operation, everyKind);
  assert.equal(request?.user, 'ada@example.com');
  assert.equal(request?.org, 'acme');
});

test('what is not given is not in the input: whether it must be is for invoke to say', async () => {
  const run = await cli(act);
  assert.equal(run.exitCode, 0);
  assert.deepEqual(run.requests[0]?.input, {});
});

test('--json answers with the output as one line', async () => {
  const run = await cli([...act, '--json']);
  assert.equal(run.stdout, `{"id":"${ID}","key":"secret"}\n`);
});

test('a refusal is one line that names the flags, or the problem as JSON, and exit code 1', async () => {
  const issues = [
    { path: 'perMinute', message: 'too small' },
    { path: 'id', message: 'no uuid' },
    { path: 'tags.0', message: 'unknown' },
    { path: 'tags.1', message: 'unknown' },
  ];
  const refused = {
    call: () => Promise.reject(new AppError('invalid_input', 'several\nlines', { details: { issues } })),
  };
  const plain = await cli(act, refused);
  assert.deepEqual([plain.exitCode, plain.stdout], [1, '']);
  assert.equal(plain.stderr, 'iora: --per-minute: too small; <id>: no uuid; --tags: unknown (invalid_input)\n');

  const json = await cli([...act, '--json'], refused);
  assert.deepEqual([json.exitCode, json.stdout], [1, '']);
  assert.equal(json.stderr.split('\n').length, 2);
  const problem = JSON.parse(json.stderr);
  assert.equal(problem.code, 'invalid_input');
  assert.equal(problem.status, 400);
  assert.deepEqual(problem.issues, issues);
  assert.match(problem.requestId, /^[0-9a-f-]{36}$/);
});

test('an answer that was given stays given when what follows fails', async () => {
  const run = await cli(act, {
    async call(_request, answer) {
      await answer({ key: 'secret' });
      throw new AppError('unavailable', 'Not recorded.');
    },
  });
  assert.deepEqual([run.exitCode, run.stdout, run.stderr], [1, 'key: secret\n', 'iora: Not recorded. (unavailable)\n']);
});

test('wrong use is one line with a hint and exit code 2, and nothing is called', async () => {
  const cases: [string[], RegExp][] = [
    [['thing'], /^iora: unknown command 'thing' \(Did you mean things\?\); see iora --help\n$/],
    [['things', 'lst'], /^iora: unknown command 'lst' \(Did you mean list\?\); see iora things --help\n$/],
    [['things', 'current', '--user', 'a@b.c'], /^iora: unknown command 'current'.*; see iora things --help\n$/],
    [
      [...act, '--nam', 'x'],
      /^iora: unknown option '--nam' \(Did you mean --name\?\); see iora things make-one --help\n$/,
    ],
    [[...act, ID, 'more'], /^iora: too many arguments.*; see iora things make-one --help\n$/],
    [[...act, '--name'], /^iora: option '--name <text>' argument missing; see iora things make-one --help\n$/],
    [['things', 'list'], /^iora: say who acts: --user EMAIL\n$/],
    [['--verbose'], /^iora: unknown option '--verbose'.*; see iora --help\n$/],
    [[''], /^iora: unknown command ''.*; see iora --help\n$/],
  ];
  for (const [words, expected] of cases) {
    const run = await cli(words);
    assert.match(run.stderr, expected);
    assert.deepEqual([run.exitCode, run.stdout, run.requests.length], [2, '', 0], words.join(' '));
  }
});

test('help goes to standard output when asked for, and to standard error when a command is missing', async () => {
  for (const words of [['--help'], ['things', '--help'], ['things', 'list', '-h'], ['migrate', 'up', '--help']]) {
    const run = await cli(words);
    assert.deepEqual([run.exitCode, run.stderr], [0, ''], words.join(' '));
    assert.match(run.stdout, /^Usage: iora/);
  }
  const all = (await cli(['--help'])).stdout;
  for (const name of ['serve', 'migrate', 'auth', 'health', 'config', 'things'])
    assert.match(all, new RegExp(`^  ${name} `, 'm'));
  const verbs = (await cli(['things', '--help'])).stdout;
  assert.match(verbs, /^ {2}make-one <id> +The summary of things\.make_one$/m);
  assert.doesNotMatch(verbs, /current/);

  for (const words of [[], ['things'], ['migrate']]) {
    const run = await cli(words);
    assert.deepEqual([run.exitCode, run.stdout], [2, ''], words.join(' '));
    assert.match(run.stderr, /^Usage: iora/);
  }
});

test('version and the commands that are no operations answer without loading the operations', async () => {
  const version = await cli(['--version']);
  assert.deepEqual([version.exitCode, version.stdout, version.loaded], [0, '1.2.3\n', false]);
  const migrated = await cli(['migrate', 'up', '--json']);
  assert.deepEqual([migrated.exitCode, migrated.stdout, migrated.loaded], [0, '{"applied":["001_a"]}\n', false]);
  assert.equal((await cli(['migrate', 'new', 'add_x'])).stdout, 'as text\n');
  assert.equal((await cli(['migrate', 'new', 'add_x', '--json'])).stdout, '{"path":"add_x"}\n');
  assert.equal((await cli(['serve'])).exitCode, undefined);
});

test('bad news is the answer on standard output, the reason on standard error, and exit code 1', async () => {
  const run = await cli(['health']);
  assert.deepEqual(
    [run.exitCode, run.stdout, run.stderr],
    [1, 'status: unhealthy\n', 'iora: It is away. (unavailable)\n'],
  );
});

test('other failures are described by the process, which also knows the exit code', async () => {
  const failing = { call: () => Promise.reject(new Error('inner')) };
  const plain = await cli(act, failing);
  assert.deepEqual([plain.exitCode, plain.stderr], [78, 'iora: described\n']);
  const json = await cli([...act, '--json'], failing);
  assert.deepEqual(JSON.parse(json.stderr), { title: 'The command failed', detail: 'described' });

  const wrong = await cli(act, { call: () => Promise.reject(new UsageError('--user must be an email address')) });
  assert.deepEqual([wrong.exitCode, wrong.stderr], [2, 'iora: --user must be an email address\n']);
  const interrupted = await cli(act, { call: () => Promise.reject(new InterruptedError(130)) });
  assert.deepEqual([interrupted.exitCode, interrupted.stderr], [130, 'iora: interrupted\n']);
});
