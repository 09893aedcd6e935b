import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { startApplication, type TestApplication, until } from '../../test/support/application.ts';
import { captureLog } from '../../test/support/captured-log.ts';
import { type TestCluster, testCluster, withClient } from '../../test/support/postgres.ts';
import { startServerProcess } from '../../test/support/server-process.ts';
import { issueToken } from '../../test/support/token.ts';
import type { Job } from '../kernel/job.ts';
import { attachEmbeddedPostgres } from '../platform/embedded-postgres.ts';
import { runJob, startJobs } from './jobs.ts';

let cluster: TestCluster;
let iora: TestApplication;
before(async () => {
  cluster = await testCluster();
  iora = await startApplication(await cluster.database());
});
after(async () => {
  await iora.close();
  await cluster.stop();
});

const parts = () => ({ database: iora.app.database, log: captureLog(), wallClockMs: Date.now });
const hourly = (name: string, run: Job['run']): Job => ({ name, everyMs: 3_600_000, run });

test('of two instances one runs a job, and the other passes on', async () => {
  const entered = Promise.withResolvers<void>();
  const finish = Promise.withResolvers<void>();
  const job = hourly('test.slow', async () => {
    entered.resolve();
    await finish.promise;
    return { done: 1, nothing: 0 };
  });
  const first = runJob(parts(), job);
  await entered.promise;
  assert.equal(
    await runJob(
      parts(),
      hourly('test.slow', () => assert.fail('two at once')),
    ),
    null,
  );
  assert.deepEqual(
    await runJob(
      parts(),
      hourly('test.other', async () => ({})),
    ),
    {},
    'another job is not held up',
  );
  finish.resolve();
  assert.deepEqual(await first, { done: 1 });
});

test('what is to follow the commit follows it, and does not when the round fails', async () => {
  const seen: string[] = [];
  const round = (fails: boolean) =>
    hourly('test.follows', async ({ tx, afterCommit }) => {
      afterCommit(() => void seen.push('after'));
      await tx.selectFrom('tiers').select('name').execute();
      seen.push('in');
      if (fails) throw new Error('no');
      return {};
    });
  await assert.rejects(runJob(parts(), round(true)));
  await runJob(parts(), round(false));
  assert.deepEqual(seen, ['in', 'in', 'after']);
});

test('a failing round is logged and harms no other; closing waits for those under way', async () => {
  const log = captureLog();
  let ended = false;
  const finish = Promise.withResolvers<void>();
  const running = startJobs({
    ...parts(),
    log,
    jobs: [
      hourly('test.fails', () => Promise.reject(new Error('no'))),
      hourly('test.waits', async () => {
        await finish.promise;
        ended = true;
        return { done: 1 };
      }),
    ],
  });
  await until(() => log.named('a job failed and comes again').length === 1, 'the failure is logged');
  const closed = running.close();
  finish.resolve();
  await closed;
  assert.ok(ended);
  assert.equal(log.named('job').length, 1);
});

test('a server does its upkeep by itself', async () => {
  const dataDir = await mkdtemp(join(tmpdir(), 'iora-jobs-'));
  const sql = async (text: string) => {
    const database = await attachEmbeddedPostgres({ dataDir });
    try {
      return await withClient(database.url('postgres'), async (client) => (await client.query(text)).rows);
    } finally {
      await database.stop();
    }
  };
  const server = await startServerProcess({ IORA_DATA_DIR: dataDir });
  const made = await fetch(`${server.url}/user/api-keys`, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${await issueToken(dataDir, { email: 'ada@example.com' })}`,
      'content-type': 'application/json',
    },
    body: JSON.stringify({ name: 'a key' }),
  });
  assert.equal(made.status, 201);
  await sql(`UPDATE api_key_families SET expires_at = now() - interval '1 hour'`);
  await server.stop();
  const again = await startServerProcess({ IORA_DATA_DIR: dataDir });
  await until(
    async () => (await sql('SELECT FROM api_key_families WHERE expired_at IS NOT NULL')).length === 1,
    'the expiry is noticed',
  );
  await again.stop();
  await rm(dataDir, { recursive: true, force: true });
});
