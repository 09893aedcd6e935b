import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { captureLog } from '../../../test/support/captured-log.ts';
import { type TestCluster, testCluster, withClient } from '../../../test/support/postgres.ts';
import { nextMonthStart } from '../../lib/month.ts';
import { parseConnection } from '../../platform/connection.ts';
import { DatabaseUnavailableError, openDatabase } from '../../platform/postgres.ts';
import { keepPartitionsAhead, MONTHS_AHEAD } from './keep-partitions-ahead.ts';

let cluster: TestCluster;
before(async () => {
  cluster = await testCluster();
});
after(() => cluster.stop());

const open = (url: string) =>
  openDatabase({
    connection: parseConnection(url),
    poolMin: 0,
    poolMax: 2,
    connectionTimeoutMs: 5_000,
    applicationName: 'test',
  });

test('what is missing of this and the coming months is made before anything is served, and the months left are counted', async () => {
  const { superuserUrl, apiUrl } = await cluster.database();
  const partitions = async () =>
    (
      await withClient(superuserUrl, (client) =>
        client.query(
          `SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = ANY ('{usage_logs,audit_logs}'::regclass[]) ORDER BY 1`,
        ),
      )
    ).rows.map(({ name }) => name);
  const all = await partitions();
  assert.equal(all.length, 2 * (MONTHS_AHEAD + 1));
  const gone = [all[0], all.at(-1)];
  await withClient(superuserUrl, (client) => client.query(`DROP TABLE ${gone.join(', ')}`));

  const database = open(apiUrl);
  const clock = { ms: Date.now() };
  const log = captureLog();
  const parts = { database, log, wallClockMs: () => clock.ms };
  const [one, two] = await Promise.all([keepPartitionsAhead(parts), keepPartitionsAhead(parts)]);
  assert.deepEqual(await partitions(), all);
  assert.equal(log.named('month partitions made').length, 1, 'of two at once one makes them');
  for (const months of [3, 2, 1, 0, 0]) {
    assert.equal(one.monthsAhead(), months);
    clock.ms = nextMonthStart(clock.ms);
  }
  one.close();
  two.close();
  await database.close();
});

test('without a database it does not begin', async () => {
  const database = open('postgres://iora_api@127.0.0.1:1/none');
  await assert.rejects(
    keepPartitionsAhead({ database, log: captureLog(), wallClockMs: () => Date.now() }),
    DatabaseUnavailableError,
  );
  await database.close();
});
