import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import { sql } from 'kysely';
import { z } from 'zod';
import { startApplication, type TestApplication } from '../../test/support/application.ts';
import { type TestCluster, testCluster } from '../../test/support/postgres.ts';
import { type Call, type Principal, writing } from './context.ts';
import { AppError } from './errors.ts';
import type { Outcome } from './invoke.ts';
import { defineOperation, type Operation } from './operation.ts';

let cluster: TestCluster;
let iora: TestApplication;
before(async () => {
  cluster = await testCluster();
  iora = await startApplication(await cluster.database());
  await iora.sql('CREATE TABLE scratch (id text PRIMARY KEY); GRANT ALL ON scratch TO iora_api');
});
after(async () => {
  await iora.close();
  await cluster.stop();
});

let people = 0;
function person(): Promise<Principal> {
  people += 1;
  return iora.session(`person-${people}@example.com`);
}

type Run = Operation<{ id?: string | undefined }, { id: string }>['run'];

/** An operation like any of the product's, around the work of a test. */
function operation(run: Run, change: Partial<Operation<{ id?: string | undefined }, { id: string }>> = {}): Operation {
  return defineOperation({
    name: 'test.run',
    route: { method: 'POST', path: '/test' },
    summary: 'A test',
    permission: null,
    audience: 'tenant',
    transports: ['http'],
    cost: 0,
    input: z.strictObject({ id: z.string().max(50).optional() }),
    output: z.object({ id: z.string().max(50) }),
    answer: 'json',
    idempotent: false,
    readOnly: true,
    example: {},
    run,
    ...change,
  });
}

const writes = { readOnly: false, audit: { action: 'tested', resourceType: 'scratch' } } as const;

function invoke(of: Operation, principal: Principal, input: unknown = {}): Promise<Outcome> {
  const call: Call = {
    principal,
    requestId: randomUUID(),
    transport: 'http',
    ipAddress: null,
    userAgent: null,
    signal: null,
  };
  return iora.app.invoke(of, call, input);
}

const codeOf = (outcome: Outcome) => (outcome.ok ? 'ok' : outcome.error.code);
const usage = (principal: Principal) =>
  iora.sql('SELECT status_code, error_message, cost FROM usage_logs WHERE owner_id = $1 ORDER BY created_at, id', [
    principal.ownerId,
  ]);
const audit = (principal: Principal) =>
  iora.sql('SELECT outcome, error_code, resource_id FROM audit_logs WHERE owner_id = $1 ORDER BY created_at, id', [
    principal.ownerId,
  ]);
/** What was taken of the month and of the minute; asking also writes every usage row of what was answered so far. */
const taken = async (principal: Principal) => {
  const { limits, remaining } = await iora.output<{
    limits: Record<string, number>;
    remaining: { month: number; minute: number };
  }>('usage.get', principal);
  return [(limits['requestsPerMonth'] ?? 0) - remaining.month, (limits['requestsPerMinute'] ?? 0) - remaining.minute];
};

test('what is refused before it runs costs nothing and leaves no usage row', async () => {
  const alice = await person();
  let runs = 0;
  const metered = (change: Partial<Operation<{ id?: string | undefined }, { id: string }>>) =>
    operation(
      async () => {
        runs += 1;
        return { id: 'x' };
      },
      { cost: 1, ...change },
    );
  assert.equal(
    codeOf(await invoke(metered({ permission: 'admin:write' }), alice, { nonsense: 1 })),
    'invalid_input',
    'shape comes first',
  );
  assert.equal(codeOf(await invoke(metered({ permission: 'admin:write' }), alice)), 'forbidden');
  assert.equal(codeOf(await invoke(metered({ callers: ['api_key', 'operator'] }), alice)), 'forbidden');
  const precheck = () => {
    throw new AppError('unknown_symbol');
  };
  assert.equal(codeOf(await invoke(metered({ precheck }), alice)), 'unknown_symbol');
  assert.equal(runs, 0);
  assert.deepEqual(await taken(alice), [0, 0]);
  assert.deepEqual(await usage(alice), []);
});

test('a call that was admitted and failed is recorded at no cost and gives its quota back, not its place in the minute', async () => {
  const alice = await person();
  const failing = (thrown: unknown) => operation(() => Promise.reject(thrown), { cost: 2 });
  const ok = operation(async () => ({ id: 'x' }), { cost: 2, status: 201 });
  assert.equal(codeOf(await invoke(failing(new AppError('upstream_unavailable')), alice)), 'upstream_unavailable');
  assert.equal(codeOf(await invoke(failing(new TypeError('a mistake')), alice)), 'internal');
  assert.equal(codeOf(await invoke(failing('not even an error'), alice)), 'internal');
  assert.equal(
    codeOf(
      await invoke(
        operation(async () => ({ id: 7 as never }), { cost: 2 }),
        alice,
      ),
    ),
    'internal',
  );
  assert.equal(codeOf(await invoke(ok, alice)), 'ok');
  assert.deepEqual(await taken(alice), [2, 10]);
  assert.deepEqual(await usage(alice), [
    { status_code: 503, error_message: 'upstream_unavailable', cost: 0 },
    { status_code: 500, error_message: 'internal', cost: 0 },
    { status_code: 500, error_message: 'internal', cost: 0 },
    { status_code: 500, error_message: 'internal', cost: 0 },
    { status_code: 201, error_message: null, cost: 2 },
  ]);
});

test('an inner failure shows the caller nothing of itself', async () => {
  const outcome = await invoke(
    operation(() => Promise.reject(new Error('password is hunter2'))),
    await person(),
  );
  assert.ok(!outcome.ok);
  assert.equal(JSON.stringify([outcome.error.message, outcome.error.details]).includes('hunter2'), false);
  assert.match(String(outcome.error.cause), /hunter2/);
});

test('a write, its audit row and what follows it happen together or not at all', async () => {
  const alice = await person();
  const followed: string[] = [];
  const insert: Run = async (context, { id = '' }) => {
    await sql`insert into scratch values (${id})`.execute(writing(context));
    context.audit.resourceId = id;
    context.afterCommit(async () => {
      const seen = await iora.sql('SELECT FROM scratch WHERE id = $1', [id]);
      followed.push(`${id} ${seen.length}`);
    });
    if (id === 'throws') throw new AppError('already_exists');
    if (id === 'misshapen') return { id: 'x'.repeat(51) };
    return { id };
  };
  const of = operation(insert, writes);
  const codes = [];
  for (const id of ['kept', 'throws', 'misshapen', 'kept']) codes.push(codeOf(await invoke(of, alice, { id })));
  assert.deepEqual(codes, ['ok', 'already_exists', 'internal', 'internal']);
  assert.deepEqual(await iora.sql('SELECT id FROM scratch'), [{ id: 'kept' }]);
  assert.deepEqual(followed, ['kept 1'], 'what follows comes after the commit, and only then');
  assert.deepEqual(await audit(alice), [
    { outcome: 'succeeded', error_code: null, resource_id: 'kept' },
    { outcome: 'refused', error_code: 'already_exists', resource_id: 'throws' },
    { outcome: 'failed', error_code: 'internal', resource_id: 'misshapen' },
    { outcome: 'failed', error_code: 'internal', resource_id: 'kept' },
  ]);
});

test('a write that had to be run again is followed, and audited, once', async () => {
  const alice = await person();
  let [runs, followed] = [0, 0];
  const of = operation(async (context) => {
    runs += 1;
    context.afterCommit(() => {
      followed += 1;
    });
    if (runs < 3)
      await sql`do $$ begin raise exception 'lost the race' using errcode = '40001'; end $$`.execute(writing(context));
    return { id: String(runs) };
  }, writes);
  const outcome = await invoke(of, alice);
  assert.deepEqual(outcome.ok && outcome.output, { id: '3' });
  assert.deepEqual([runs, followed], [3, 1]);
  assert.equal((await audit(alice)).length, 1);
});

test('a read-only operation has no transaction to write in and nothing to follow', async () => {
  const alice = await person();
  const misuse = [
    (context: Parameters<Run>[0]) => writing(context),
    (context: Parameters<Run>[0]) => context.afterCommit(() => undefined),
  ];
  for (const wrong of misuse) {
    const outcome = await invoke(
      operation(async (context) => {
        wrong(context);
        return { id: 'x' };
      }),
      alice,
    );
    assert.equal(codeOf(outcome), 'internal');
  }
  assert.throws(() => operation(async () => ({ id: 'x' }), { readOnly: false }), /audit/);
});

test('input that fails in a thousand places is answered briefly', async () => {
  const hostile = Object.fromEntries(
    Array.from({ length: 5_000 }, (_, index) => [`${'x'.repeat(300)}${index}`, index]),
  );
  const outcome = await invoke(
    operation(async () => ({ id: 'x' })),
    await person(),
    hostile,
  );
  assert.ok(!outcome.ok);
  assert.ok(JSON.stringify([outcome.error.message, outcome.error.details]).length < 6_000);
});
