// Sends generated cases into every operation and holds the answers, the rows and the books against what was promised.
import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { Operation } from '../../src/kernel/operation.ts';
import { openMetrics } from '../../src/platform/metrics.ts';
import { createHttpServer } from '../../src/transports/http/server.ts';
import { checkHostAndOrigin, createMcpTransport } from '../../src/transports/mcp/index.ts';
import { startApplication } from './application.ts';
import { captureLog } from './captured-log.ts';
import { inputsOf } from './operation-arbitraries.ts';
import { type TestCluster, testCluster } from './postgres.ts';
import type { Carrier } from './property-answers.ts';
import { assertBooks } from './property-books.ts';
import { type Case, createCaseRunner } from './property-case.ts';
import { cliCarrier } from './property-cli.ts';
import { httpCarrier } from './property-http.ts';
import { mcpCarrier } from './property-mcp.ts';
import { createTally, type OperationTally } from './property-tally.ts';
import { watchOperations } from './property-watch.ts';
import { buildWorld, signer } from './property-world.ts';

export interface PropertyResult {
  readonly tallies: ReadonlyMap<string, OperationTally>;
  /** What does not hold, by operation, with what it takes to repeat it: has to be empty. */
  readonly broken: readonly string[];
}

/** The least share of the cases that must be valid enough to reach `run`, over every transport. */
const RAN_SHARE_MIN = 1 / 3;

/** One of so many cases is sent in a form that is no message at all. */
const RAW_SHARE = 12;
/** One of so many cases comes from somebody who may not, or no longer. */
const INCAPABLE_SHARE = 7;

/**
 * Sends so many cases into every operation, on a PostgreSQL of its own, all operations at the same time and each in a world
 * of its own. The same seed makes the same cases. `say` is told when an operation is done.
 */
export async function checkOperations(
  cases: number,
  seed: number,
  say: (line: string) => void,
): Promise<PropertyResult> {
  const cluster = await testCluster();
  try {
    return await checkOn(cluster, { cases, seed, say });
  } finally {
    await cluster.stop();
  }
}

interface Wanted {
  readonly cases: number;
  readonly seed: number;
  readonly say: (line: string) => void;
}

async function checkOn(cluster: TestCluster, { cases, seed, say }: Wanted): Promise<PropertyResult> {
  const run = await start(cluster);
  const startedAt = performance.now();
  const tallies = new Map(run.operations.map((operation) => [operation.name, createTally(operation)]));
  const broken: string[] = [];

  async function check(operation: Operation, tally: OperationTally): Promise<void> {
    try {
      await run.check(operation, tally, { cases, seed });
      broken.push(...shortfalls(operation, tally, cases));
    } catch (error) {
      broken.push(`${operation.name}: ${describe(error)}`);
    }
    say(`${operation.name}: ${cases} cases, done after ${Math.round((performance.now() - startedAt) / SECOND_MS)} s`);
  }

  await Promise.all(
    run.operations.map((operation) => check(operation, tallies.get(operation.name) ?? createTally(operation))),
  );
  broken.push(...run.failures().map((line) => `failed: ${line}`));
  broken.push(...(await run.close()).map((line) => `in the log: ${line}`));
  return { tallies, broken };
}

const SECOND_MS = 1_000;

/** Enough of a counterexample to see what it is about; the seed repeats it whole. */
const TEXT_LENGTH_MAX = 4_000;

/** The first assertion that failed, and what fast-check says: its seed and path, and the smallest case. */
function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { message, stack, cause } = error;
  const text = cause instanceof Error ? `${cause.stack}\n${message}` : String(stack);
  return text.slice(0, TEXT_LENGTH_MAX);
}

/** Where too few cases were sent, or too few of them got as far as `run`. */
function shortfalls(operation: Operation, { figures }: OperationTally, cases: number): string[] {
  return [...figures].flatMap(([transport, { sent, ran, leftOut }]) => {
    const all = [...leftOut.values()].reduce((sum, number) => sum + number, sent);
    const where = `${operation.name} over ${transport}`;
    return [
      ...(all === cases ? [] : [`${where}: ${all} cases instead of ${cases}`]),
      ...(ran >= sent * RAN_SHARE_MIN ? [] : [`${where}: only ${ran} of ${sent} cases reached run`]),
    ];
  });
}

async function start(cluster: TestCluster) {
  const database = await cluster.database();
  const app = await startApplication(database, {
    settings: { SERVICE_SECRETS: `${signer.service}:${signer.keyId}:${signer.secret.toString('base64')}` },
  });
  const watch = watchOperations(app);
  const mcp = createMcpTransport({ operations: watch.operations, version: '0.0.0' });
  const log = captureLog();
  const server = createHttpServer({
    operations: watch.operations,
    endpoints: [],
    invoke: watch.invoke,
    authenticate: app.app.authenticate,
    rightsHeard: app.app.rightsHeard,
    mcp: {
      ...mcp,
      resource: null,
      check: (headers) => checkHostAndOrigin(headers, { hosts: [], origins: [] }),
    },
    log: { ...log, debug: ignore, info: ignore },
    metrics: openMetrics(),
    version: '0.0.0',
    publicUrl: undefined,
    trustedProxies: [],
  });
  const carriers: Carrier[] = [await httpCarrier(server), mcpCarrier(server), cliCarrier(watch.invoke)];

  return {
    operations: watch.operations,
    failures: watch.failures,
    async check(operation: Operation, tally: OperationTally, { cases, seed }: { cases: number; seed: number }) {
      const world = await buildWorld(app, operation);
      const before = await world.state();
      const runCase = createCaseRunner({ app, operation, world, carriers, tally, ...watch });
      // Looking for the smallest case that fails goes on in a world that the first one may have left in disorder.
      let first: unknown;
      const property = fc.asyncProperty(casesOf(operation), async (given) => {
        try {
          await runCase(given);
        } catch (error) {
          first ??= error;
          throw error;
        }
      });
      await fc.assert(property, { numRuns: cases, seed }).catch((error: Error) => {
        throw new Error(error.message, { cause: first });
      });
      if (operation.readOnly) assert.deepEqual(await world.state(), before, 'a read changed something');
      await assertBooks(app, world, tally);
    },
    /** Stops everything. Resolves to what was logged as an error: nothing here should fail on our side. */
    async close(): Promise<string[]> {
      await server.close();
      await mcp.close();
      await app.close();
      await database.drop();
      return [...log.lines(), ...app.log.lines()].filter((line) => line.startsWith('error'));
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
      raw: fc.oneof({ weight: RAW_SHARE - 1, arbitrary: fc.constant(null) }, { weight: 1, arbitrary: fc.nat(999) }),
      revision: fc.nat(3),
      spaced: fc.boolean(),
      json: fc.nat(9).map((number) => number > 0),
    }),
  });
}
