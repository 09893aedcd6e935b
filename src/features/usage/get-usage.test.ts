import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import { startApplication, type TestApplication, testSecrets, until } from '../../../test/support/application.ts';
import { captureLog } from '../../../test/support/captured-log.ts';
import { type TestCluster, type TestDatabase, testCluster, withClient } from '../../../test/support/postgres.ts';
import type { Principal } from '../../kernel/context.ts';
import type { Outcome } from '../../kernel/invoke.ts';
import { nextMonthStart } from '../../lib/month.ts';
import { createAdmission } from '../limits/admission.ts';
import { chargedSince, createUsageWriter } from './index.ts';

let cluster: TestCluster;
let database: TestDatabase;
let iora: TestApplication;
const secrets = testSecrets();
before(async () => {
  cluster = await testCluster();
  database = await cluster.database();
  iora = await startApplication(database, { secrets });
});
after(async () => {
  await iora.close();
  await cluster.stop();
});

interface Usage {
  readonly period: { readonly start: string; readonly end: string };
  readonly today: Counts;
  readonly month: Counts;
  readonly tier: string;
  readonly limits: Record<string, number>;
  readonly remaining: { readonly minute: number | null; readonly month: number | null };
  readonly byEndpoint: readonly (Counts & { operation: string })[];
  readonly byDay: readonly (Counts & { date: string })[];
}
interface Counts {
  readonly calls: number;
  readonly cost: number;
  readonly errors: number;
}

let people = 0;
/** Somebody new with limits of their own. */
async function person(
  limits: { minute?: number; month?: number } = {},
): Promise<{ session: Principal; email: string }> {
  people += 1;
  const email = `person-${people}@example.com`;
  const { userId } = await iora.bearer(await iora.token(email, undefined, true));
  await iora.sql('UPDATE users SET max_requests_per_minute = $2, max_requests_per_month = $3 WHERE id = $1', [
    userId,
    limits.minute ?? null,
    limits.month ?? null,
  ]);
  return { session: await iora.session(email), email };
}

const price = (who: Principal, application = iora) => application.call('market.get_price', who, { symbol: 'BTC' });
const usageOf = (who: Principal, application = iora) => application.output<Usage>('usage.get', who);
const codeOf = (outcome: Outcome) => (outcome.ok ? 'ok' : outcome.error.code);
const codes = async (who: Principal, calls: number, application = iora) => {
  const seen: string[] = [];
  for (let call = 0; call < calls; call += 1) seen.push(codeOf(await price(who, application)));
  return seen;
};

test('usage shows every call at once: what was answered, what was refused, what is left', async () => {
  const { session } = await person({ minute: 4, month: 100 });
  assert.deepEqual(await codes(session, 6), ['ok', 'ok', 'ok', 'ok', 'rate_limited', 'rate_limited']);
  await iora.call('market.get_price', session, { symbol: 'NOSUCHCOIN' });
  const usage = await usageOf(session);
  const counts = { calls: 6, cost: 4, errors: 2 };
  assert.deepEqual([usage.today, usage.month], [counts, counts]);
  assert.deepEqual(usage.byEndpoint, [{ operation: 'market.get_price', ...counts }]);
  assert.deepEqual(usage.byDay, [{ date: new Date().toISOString().slice(0, 10), ...counts }]);
  assert.deepEqual(usage.remaining, { minute: 0, month: 96 });
  assert.deepEqual(
    [usage.tier, usage.limits],
    ['free', { requestsPerMinute: 4, requestsPerMonth: 100, maxApiKeys: 5 }],
  );
  assert.ok(usage.period.start <= new Date().toISOString() && new Date().toISOString() < usage.period.end);
});

test('nobody sees the usage of another, and a new person sees none', async () => {
  const [{ session: busy }, { session: idle }] = [await person(), await person()];
  await codes(busy, 3);
  const none = { calls: 0, cost: 0, errors: 0 };
  const usage = await usageOf(idle);
  assert.deepEqual([usage.today, usage.month, usage.byEndpoint, usage.byDay], [none, none, [], []]);
});

test('in an organization a plain member sees its own usage, everybody else that of all', async () => {
  const org = `shared-${randomUUID().slice(0, 8)}`;
  const owner = await iora.session(`owner@${org}.example.com`, org);
  const [member, viewer] = [
    await iora.member(`member@${org}.example.com`, org, 'member'),
    await iora.member(`viewer@${org}.example.com`, org, 'viewer'),
  ];
  for (const who of [owner, owner, member]) assert.ok((await price(who)).ok);
  const all = await Promise.all([owner, member, viewer, owner, member].map((who) => usageOf(who)));
  assert.deepEqual(
    all.map(({ month }) => month.calls),
    [3, 1, 3, 3, 1],
  );
  assert.equal(new Set(all.map(({ remaining }) => remaining.month)).size, 1, 'what is left is that of all');
});

test('refusals for quota and rate are recorded at no cost, the month before the minute', async () => {
  const { session } = await person({ minute: 3, month: 2 });
  assert.deepEqual(await codes(session, 4), ['ok', 'ok', 'quota_exceeded', 'quota_exceeded']);
  const { session: quick } = await person({ minute: 2, month: 3 });
  assert.deepEqual(await codes(quick, 4), ['ok', 'ok', 'rate_limited', 'rate_limited']);
  await usageOf(session);
  const rows = await iora.sql(
    'SELECT status_code AS status, error_message AS code, cost FROM usage_logs WHERE owner_id = ANY ($1) ORDER BY created_at, id',
    [[session.ownerId, quick.ownerId]],
  );
  assert.deepEqual(
    rows.map((row) => [row.status, row.code, row.cost]),
    [
      [200, null, 1],
      [200, null, 1],
      [402, 'quota_exceeded', 0],
      [402, 'quota_exceeded', 0],
      [200, null, 1],
      [200, null, 1],
      [429, 'rate_limited', 0],
      [429, 'rate_limited', 0],
    ],
  );
});

test('the month goes on where it was after a restart, for the owner and for a key with a limit of its own', async () => {
  const { session } = await person({ month: 10 });
  const { key } = await iora.output<{ key: string }>('keys.create', session, { name: 'x', requestsPerMonth: 4 });
  assert.deepEqual(await codes(await iora.bearer(key), 3), ['ok', 'ok', 'ok']);
  assert.deepEqual(await codes(session, 4), ['ok', 'ok', 'ok', 'ok']);
  await usageOf(session);

  const restarted = await startApplication(database, { secrets });
  const again = await restarted.bearer(key);
  assert.deepEqual(await codes(again, 2, restarted), ['ok', 'quota_exceeded']);
  assert.deepEqual(await codes(session, 3, restarted), ['ok', 'ok', 'quota_exceeded']);
  const { remaining } = await usageOf(session, restarted);
  assert.equal(remaining.month, 0);
  await restarted.close();
});

test('test keys are recorded, limited by the minute and no part of month or usage', async () => {
  const { session } = await person({ minute: 5, month: 1 });
  const { key } = await iora.output<{ key: string }>('keys.create', session, {
    name: 'x',
    environment: 'test',
    permissions: ['tools:read', 'usage:read'],
  });
  const principal = await iora.bearer(key);
  assert.deepEqual(await codes(principal, 6), ['ok', 'ok', 'ok', 'ok', 'ok', 'rate_limited']);
  const usage = await usageOf(principal);
  assert.deepEqual([usage.month.calls, usage.remaining.minute], [0, 0]);
  assert.equal((await usageOf(session)).remaining.month, 1);
  const rows = await iora.sql('SELECT billable, count(*)::int AS rows FROM usage_logs WHERE owner_id = $1 GROUP BY 1', [
    session.ownerId,
  ]);
  assert.deepEqual(rows, [{ billable: false, rows: 6 }]);
});

test('another tier holds from the first call after it is told', async () => {
  const { session, email } = await person({ minute: 2 });
  assert.deepEqual(await codes(session, 3), ['ok', 'ok', 'rate_limited']);
  await iora.sql(`UPDATE users SET tier = 'pro', max_requests_per_minute = NULL WHERE id = $1`, [session.userId]);
  await iora.sql(
    `SELECT pg_notify('iora_invalidate', json_build_object('id', $1::text, 'tags', json_build_array($2::text))::text)`,
    [randomUUID(), `owner:${session.ownerId}`],
  );
  await until(async () => (await iora.session(email)).tier === 'pro', 'the tier is known');
  const upgraded = await iora.session(email);
  assert.deepEqual(await codes(upgraded, 1), ['ok']);
  const usage = await usageOf(upgraded);
  assert.deepEqual([usage.tier, usage.limits['requestsPerMinute'], usage.remaining.minute], ['pro', 1_000, 997]);
});

test('first calls of many at once are all counted, none twice', async () => {
  const { session } = await person({ minute: 200, month: 30 });
  const outcomes = await Promise.all(Array.from({ length: 60 }, () => price(session)));
  assert.equal(outcomes.filter((outcome) => outcome.ok).length, 30);
  const usage = await usageOf(session);
  assert.deepEqual([usage.month, usage.remaining.month], [{ calls: 60, cost: 30, errors: 30 }, 0]);
});

test('with the new month the quota is whole again, and what was recorded in it counts', async () => {
  const { session } = await person({ month: 3 });
  const clock = { ms: Date.now() };
  const own = () => {
    const writer = createUsageWriter({ database: iora.app.database, flushIntervalMs: 3_600_000, log: captureLog() });
    const admission = createAdmission({
      monotonicMs: () => performance.now(),
      wallClockMs: () => clock.ms,
      unmeteredPerWindowMax: 600,
      servicePerWindowMax: 600,
      usedSince: (who, subject, sinceMs) =>
        chargedSince({ database: iora.app.database, writer }, who, subject, sinceMs),
    });
    return async (calls: number) => {
      let admitted = 0;
      for (let call = 0; call < calls; call += 1) {
        const decision = await admission.admit(session, 1);
        if (!decision.admitted) continue;
        admitted += 1;
        writer.record({
          createdAtMs: clock.ms,
          principal: session,
          operation: iora.operation('market.get_price'),
          symbol: 'BTC',
          statusCode: 200,
          responseTimeMs: 1,
          errorCode: null,
          cost: 1,
          requestId: randomUUID(),
        });
      }
      await writer.flush();
      return admitted;
    };
  };
  const [first, second] = [own(), own()];
  assert.equal(await first(5), 3);
  clock.ms = nextMonthStart(clock.ms) - 1;
  assert.equal(await first(1), 0);
  clock.ms += 1;
  assert.equal(await first(2), 2);
  assert.equal(await second(5), 1, 'one that starts now knows of both');
});

test('whoever asks while another is being answered still sees its own last call', async () => {
  const { session } = await person();
  await price(session);
  await usageOf(session);
  await withClient(database.superuserUrl, async (client) => {
    await client.query('BEGIN; LOCK TABLE usage_logs IN ACCESS EXCLUSIVE MODE');
    const before = usageOf(session);
    await until(async () => {
      const { rows } = await client.query(
        `SELECT FROM pg_locks JOIN pg_database ON oid = database WHERE NOT granted AND datname = current_database()`,
      );
      return rows.length > 0;
    }, 'the first question waits for the table');
    await price(session);
    const after = [usageOf(session), usageOf(session)];
    await client.query('COMMIT');
    await before;
    for (const usage of await Promise.all(after)) assert.equal(usage.month.calls, 2);
  });
});
