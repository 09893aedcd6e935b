// Sends generated cases into every operation and holds the answers, the rows and the books against what was promised.
import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { Invoke } from '../../src/kernel/invoke.ts';
import type { Operation } from '../../src/kernel/operation.ts';
import { openMetrics } from '../../src/platform/metrics.ts';
import { createHttpServer } from '../../src/transports/http/server.ts';
import { checkHostAndOrigin, createMcpTransport } from '../../src/transports/mcp/index.ts';
import { startApplication, type TestApplication } from './application.ts';
import { captureLog } from './captured-log.ts';
import { inputsOf } from './operation-arbitraries.ts';
import { testCluster } from './postgres.ts';
import type { Carrier } from './property-answers.ts';
import { type Case, createCaseRunner } from './property-case.ts';
import { cliCarrier } from './property-cli.ts';
import { httpCarrier } from './property-http.ts';
import { mcpCarrier } from './property-mcp.ts';
import { createTally, type OperationTally } from './property-tally.ts';
import { buildWorld, SETUP_REQUEST, type World } from './property-world.ts';

export interface PropertyRun {
  readonly seed: number;
  readonly operations: readonly string[];
  /** Runs the cases of one operation in a world of its own; operations may run at the same time. */
  check(operationName: string, cases: number): Promise<OperationTally>;
  close(): Promise<void>;
}

/** One of so many cases is sent in a form that is no message at all. */
const RAW_SHARE = 12;
/** One of so many cases comes from somebody who may not, or no longer. */
const INCAPABLE_SHARE = 7;
/** Request ids looked back at: far more than are under way at once. */
const REQUESTS_KEPT_MAX = 10_000;

/** Starts the application on a PostgreSQL of its own, with `run` of every operation watched. */
export async function startPropertyRun(seed: number): Promise<PropertyRun> {
  const cluster = await testCluster();
  const database = await cluster.database();
  const app = await startApplication(database);
  const watch = watchOperations(app);
  const mcp = createMcpTransport({ operations: watch.operations, version: '0.0.0' });
  const log = captureLog();
  const server = createHttpServer({
    operations: watch.operations,
    endpoints: [],
    invoke: watch.invoke,
    authenticate: app.app.authenticate,
    mcp: {
      handle: mcp.handle,
      check: (headers) => checkHostAndOrigin(headers, { hosts: [], origins: [] }),
    },
    log: { ...log, debug: ignore, info: ignore },
    metrics: openMetrics(),
    version: '0.0.0',
    publicUrl: undefined,
    trustedProxies: [],
  });
  const carriers: Carrier[] = [
    await httpCarrier(server),
    mcpCarrier(server),
    cliCarrier({ operations: watch.operations, invoke: watch.invoke }),
  ];

  return {
    seed,
    operations: watch.operations.map(({ name }) => name),
    async check(operationName, cases) {
      const operation = watch.operations.find(({ name }) => name === operationName);
      assert.ok(operation !== undefined);
      const world = await buildWorld(app, operation);
      const tally = createTally(operation);
      const before = await world.state();
      const runCase = createCaseRunner({ app, operation, world, carriers, tally, ...watch });
      await fc.assert(fc.asyncProperty(casesOf(operation), runCase), { numRuns: cases, seed });
      if (operation.readOnly) assert.deepEqual(await world.state(), before, 'a read changed something');
      await assertBooks(app, world, tally);
      return tally;
    },
    async close() {
      await server.close();
      await mcp.close();
      await app.close();
      await database.drop();
      await cluster.stop();
      const errors = [...log.lines(), ...app.log.lines()].filter((line) => line.startsWith('error'));
      assert.deepEqual(errors, [], 'something failed on our side');
    },
  };
}

/** A line for every request would fill the memory. */
function ignore(): void {}

function casesOf(operation: Operation): fc.Arbitrary<Case> {
  return fc.record({
    input: inputsOf(operation),
    callerIndex: fc.nat(99),
    isCapable: fc.nat(INCAPABLE_SHARE - 1).map((number) => number > 0),
    style: fc.record({
      raw: fc.oneof(
        { weight: RAW_SHARE - 1, arbitrary: fc.constant(null) },
        { weight: 1, arbitrary: fc.nat(999) },
      ),
      revision: fc.nat(3),
      spaced: fc.boolean(),
      json: fc.nat(9).map((number) => number > 0),
    }),
  });
}

/** The operations with a note taken of every `run`, and `invoke` with one of every input. */
function watchOperations(app: TestApplication) {
  const inputs = new Map<string, { readonly input: unknown }>();
  const runs = new Map<string, true>();
  const operations = app.app.operations.map(
    (operation): Operation => ({
      ...operation,
      run(context, input) {
        keep(runs, context.requestId, true);
        return operation.run(context, input);
      },
    }),
  );
  const invoke: Invoke = (operation, call, input) => {
    keep(inputs, call.requestId, { input });
    return app.app.invoke(operation, call, input);
  };
  return {
    operations,
    invoke,
    given: (requestId: string) => inputs.get(requestId),
    ran: (requestId: string) => runs.has(requestId),
  };
}

function keep<Value>(kept: Map<string, Value>, requestId: string, value: Value): void {
  if (kept.size >= REQUESTS_KEPT_MAX) for (const oldest of kept.keys()) {
    kept.delete(oldest);
    break;
  }
  kept.set(requestId, value);
}

/** Every answered call is in the usage rows exactly once, nothing else is, and quota and audit trail say the same. */
async function assertBooks(app: TestApplication, world: World, { books }: OperationTally): Promise<void> {
  const usage = await app.output<{ month: { cost: number } }>('usage.get', world.owner);
  const rows: { request_id: string; cost: number; owner_id: string; billable: boolean }[] = await app.sql(
    'SELECT request_id, cost, owner_id, billable FROM usage_logs WHERE owner_id = ANY ($1) AND request_id NOT LIKE $2',
    [world.ownerIds, `${SETUP_REQUEST}%`],
  );
  const ids = (holds: (row: (typeof rows)[number]) => boolean) => rows.filter(holds).map((row) => row.request_id).sort();
  assert.deepEqual(ids(({ cost }) => cost > 0), books.charged.sort(), 'the charged calls are not the answered ones');
  assert.deepEqual(ids(({ cost }) => cost === 0), books.free.sort(), 'the free rows are not the refused calls');
  for (const ownerId of world.ownerIds) {
    const cost = rows.filter((row) => row.owner_id === ownerId && row.billable).reduce((sum, row) => sum + row.cost, 0);
    assert.equal(cost, books.cost.get(ownerId) ?? 0);
  }
  const states = await app.output<{ remaining: { month: number } ; limits: { requestsPerMonth: number } }>('usage.get', world.owner);
  assert.equal(states.limits.requestsPerMonth - states.remaining.month, usage.month.cost, 'the quota is not what was charged');
  const audited: { request_id: string }[] = await app.sql(
    `SELECT request_id FROM audit_logs WHERE owner_id = ANY ($1) AND outcome = 'succeeded' AND request_id = ANY ($2)`,
    [world.ownerIds, books.written],
  );
  assert.deepEqual(audited.map((row) => row.request_id).sort(), books.written.sort(), 'answered writes without audit rows');
}
