import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { type TestCluster, testCluster } from './support/postgres.ts';
import { type TestRedis, testRedis, withoutRedis } from './support/redis.ts';
import { type Instances, startInstances } from './support/revocation-instances.ts';
import { revokeAfterKill, revokeUnderLoad, revokeUnheard } from './support/revocation-run.ts';

/** Three real processes on one PostgreSQL; test/soak/revocation.ts runs more of the same and shows the figures. */

const ROUNDS = 10;
/** What is promised of an instance that hears nothing, whatever KEY_CACHE_TTL says. */
const UNHEARD_MAX_MS = 10_000;
const skip = await withoutRedis();

let cluster: TestCluster;
before(async () => {
  cluster = await testCluster();
});
after(() => cluster.stop());

async function holdsUnderLoad(instances: Instances): Promise<void> {
  const run = await revokeUnderLoad(instances, ROUNDS);
  assert.deepEqual([run.admittedAfterAnswer, run.notEverywhere, run.otherRefused], [0, 0, 0]);
  assert.equal(run.refusedAfterMs.length, ROUNDS * instances.servers.length);
  assert.ok(run.calls > ROUNDS * instances.servers.length * 10 && run.otherCalls > 0);
}

async function acknowledgements(instances: Instances, bus: string): Promise<number> {
  const texts = await Promise.all(instances.servers.map(async ({ url }) => (await fetch(`${url}/metrics`)).text()));
  const expression = new RegExp(`^iora_revocation_propagation_seconds_count\\{bus="${bus}"\\} (\\d+)$`, 'm');
  return texts.reduce((sum, text) => sum + Number(expression.exec(text)?.[1] ?? 0), 0);
}

test('without Redis: what was answered holds on every process, and unheard within the bound', async () => {
  const instances = await startInstances(await cluster.database(), undefined);
  try {
    await holdsUnderLoad(instances);
    assert.equal(await acknowledgements(instances, 'postgres'), 2 * ROUNDS);
    const { answer, refusedAfterMs } = await revokeUnheard(instances, 'blackhole');
    assert.deepEqual([answer.effectiveOn, answer.of], [2, 3]);
    // The wait ends at 2 s; the rest is for a machine that is busy.
    assert.ok(answer.ms >= 1_990 && answer.ms < 3_000, `${answer.ms} ms`);
    assert.ok(answer.ms + refusedAfterMs < UNHEARD_MAX_MS, `${answer.ms} ms and ${refusedAfterMs} ms`);
    const killed = await revokeAfterKill(instances);
    assert.deepEqual([killed.answer.effectiveOn, killed.answer.of], [2, 3]);
  } finally {
    await instances.stop();
  }
});

test('with Redis: the same, and LISTEN cut off leaves nobody behind', { skip }, async () => {
  const redis: TestRedis = await testRedis();
  const instances = await startInstances(await cluster.database(), redis.url);
  try {
    await holdsUnderLoad(instances);
    assert.ok((await acknowledgements(instances, 'redis')) > 0);
    const { answer } = await revokeUnheard(instances, 'blackhole');
    assert.deepEqual([answer.effectiveOn, answer.of], [3, 3]);
  } finally {
    await instances.stop();
    await redis.stop();
  }
});
