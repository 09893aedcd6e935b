// What the tables hold once the cases are through, against what was answered.
import assert from 'node:assert/strict';
import type { TestApplication } from './application.ts';
import type { OperationTally } from './property-tally.ts';
import { SETUP_REQUEST, type World } from './property-world.ts';

interface UsageRow {
  readonly request_id: string;
  readonly cost: number;
  readonly owner_id: string;
  readonly billable: boolean;
}

/** Every answered call is in the usage rows once and nothing else is; quota and audit trail say the same. */
export async function assertBooks(app: TestApplication, world: World, { books }: OperationTally): Promise<void> {
  // Asked first, for it writes what still waits.
  const usage = await app.output<{
    month: { cost: number };
    remaining: { month: number };
    limits: { requestsPerMonth: number };
  }>('usage.get', world.owner);
  const rows: UsageRow[] = await app.sql(
    'SELECT request_id, cost, owner_id, billable FROM usage_logs WHERE owner_id = ANY ($1) AND request_id NOT LIKE $2',
    [world.ownerIds, `${SETUP_REQUEST}%`],
  );
  const charged = rows.filter(({ cost }) => cost > 0);
  const free = rows.filter(({ cost }) => cost === 0);
  assert.deepEqual(requestIds(charged), books.charged.sort(), 'the charged calls are not the answered ones');
  assert.deepEqual(requestIds(free), books.free.sort(), 'the calls recorded at no cost are not the refused ones');
  for (const ownerId of world.ownerIds) {
    const billed = charged.filter(({ owner_id, billable }) => owner_id === ownerId && billable);
    const cost = billed.reduce((sum, row) => sum + row.cost, 0);
    assert.equal(cost, books.cost.get(ownerId) ?? 0, 'an owner was charged for something else than its answered calls');
  }
  const used = usage.limits.requestsPerMonth - usage.remaining.month;
  assert.equal(used, usage.month.cost, 'the quota is not what was charged');

  const audited: { request_id: string }[] = await app.sql(
    `SELECT request_id FROM audit_logs WHERE owner_id = ANY ($1) AND outcome = 'succeeded' AND request_id NOT LIKE $2`,
    [world.ownerIds, `${SETUP_REQUEST}%`],
  );
  assert.deepEqual(requestIds(audited), books.written.sort(), 'the audited writes are not the answered ones');
}

function requestIds(rows: readonly { readonly request_id: string }[]): string[] {
  return rows.map((row) => row.request_id).sort();
}
