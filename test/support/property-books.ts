// What the tables hold once the cases are through, against what was answered.
import assert from 'node:assert/strict';
import type { TestApplication } from './application.ts';
import type { OperationTally } from './property-tally.ts';
import { SETUP_REQUEST, type World } from './property-world.ts';

/** Every answered call is in the usage rows exactly once, nothing else is, and quota and audit trail say the same. */
export async function assertBooks(app: TestApplication, world: World, { books }: OperationTally): Promise<void> {
  const usage = await app.output<{ month: { cost: number } }>('usage.get', world.owner);
  const rows: { request_id: string; cost: number; owner_id: string; billable: boolean }[] = await app.sql(
    'SELECT request_id, cost, owner_id, billable FROM usage_logs WHERE owner_id = ANY ($1) AND request_id NOT LIKE $2',
    [world.ownerIds, `${SETUP_REQUEST}%`],
  );
  const ids = (holds: (row: (typeof rows)[number]) => boolean) =>
    rows
      .filter(holds)
      .map((row) => row.request_id)
      .sort();
  assert.deepEqual(
    ids(({ cost }) => cost > 0),
    books.charged.sort(),
    'the charged calls are not the answered ones',
  );
  assert.deepEqual(
    ids(({ cost }) => cost === 0),
    books.free.sort(),
    'the free rows are not the refused calls',
  );
  for (const ownerId of world.ownerIds) {
    const cost = rows.filter((row) => row.owner_id === ownerId && row.billable).reduce((sum, row) => sum + row.cost, 0);
    assert.equal(cost, books.cost.get(ownerId) ?? 0);
  }
  const states = await app.output<{ remaining: { month: number }; limits: { requestsPerMonth: number } }>(
    'usage.get',
    world.owner,
  );
  assert.equal(
    states.limits.requestsPerMonth - states.remaining.month,
    usage.month.cost,
    'the quota is not what was charged',
  );
  const audited: { request_id: string }[] = await app.sql(
    `SELECT request_id FROM audit_logs WHERE owner_id = ANY ($1) AND outcome = 'succeeded' AND request_id = ANY ($2)`,
    [world.ownerIds, books.written],
  );
  assert.deepEqual(
    audited.map((row) => row.request_id).sort(),
    books.written.sort(),
    'answered writes without audit rows',
  );
}
