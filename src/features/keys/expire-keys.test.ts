import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { startApplication, type TestApplication, until } from '../../../test/support/application.ts';
import { type TestCluster, testCluster } from '../../../test/support/postgres.ts';
import type { Principal } from '../../kernel/context.ts';
import { runJob } from '../../main/jobs.ts';
import type { KeyRecord } from './key-record.ts';

const DAY_MS = 86_400_000;
const HOUR_MS = 3_600_000;

let cluster: TestCluster;
let iora: TestApplication;
before(async () => {
  cluster = await testCluster();
});
after(() => cluster.stop());

/** A database of its own for each test, since a round meets whatever is due in it. */
async function start(): Promise<{ alice: Principal; stop(): Promise<void> }> {
  const database = await cluster.database();
  iora = await startApplication(database);
  const alice = await iora.session('ada@example.com');
  return {
    alice,
    async stop() {
      await iora.close();
      await database.drop();
    },
  };
}

type Counts = Readonly<Record<string, number>>;

/** A round at that moment; where the application itself is at it, once more. */
async function round(nowMs: number): Promise<Counts> {
  const job = iora.app.jobs.find(({ name }) => name === 'keys.expire') ?? assert.fail();
  let counts: Counts | null = null;
  await until(async () => {
    counts = await runJob({ database: iora.app.database, wallClockMs: () => nowMs }, job);
    return counts !== null;
  }, 'the job is free');
  return counts ?? assert.fail();
}

const create = (owner: Principal, expiresAtMs: number | null, name = 'a key') =>
  iora.output<{ id: string; key: string; keyPrefix: string }>('keys.create', owner, {
    name,
    ...(expiresAtMs === null ? {} : { expiresAt: new Date(expiresAtMs).toISOString() }),
  });

/** What the trail and the outbox say of a key, oldest first. */
async function told(id: string) {
  const audit = await iora.sql(
    `SELECT action, changes->>'days' AS days FROM audit_logs WHERE resource_id = $1 AND actor_type = 'system' ORDER BY created_at`,
    [id],
  );
  const outbox = await iora.sql(
    `SELECT topic, payload->>'days' AS days FROM outbox_events WHERE payload->>'keyId' = $1 ORDER BY created_at`,
    [id],
  );
  return {
    audit: audit.map(({ action, days }) => (days === null ? action : `${action} ${days}`)),
    outbox: outbox.map(({ topic, days }) => (days === null ? topic : `${topic} ${days}`)),
  };
}

test('an expiry is told seven days and one day before, marked when it comes, each once', async () => {
  const { alice, stop } = await start();
  const now = Date.now();
  const expiresAt = now + 30 * DAY_MS;
  const { id } = await create(alice, expiresAt, 'backend');
  await create(alice, null);
  assert.deepEqual(await round(now), {});
  assert.deepEqual(await round(expiresAt - 7 * DAY_MS - 1), {}, 'a moment too early');
  assert.deepEqual(await round(expiresAt - 7 * DAY_MS), { expiring: 1 });
  assert.deepEqual(await round(expiresAt - 7 * DAY_MS), {}, 'a second round does nothing');
  assert.deepEqual(await round(expiresAt - DAY_MS - 1), {});
  assert.deepEqual(await round(expiresAt - DAY_MS), { expiring: 1 });
  assert.deepEqual(await round(expiresAt - 1), {});
  assert.deepEqual(await round(expiresAt), { expired: 1 });
  assert.deepEqual(await round(expiresAt), {});
  assert.deepEqual(await told(id), {
    audit: ['api_key_expiring 7', 'api_key_expiring 1', 'api_key_expired'],
    outbox: ['api_key.expiring 7', 'api_key.expiring 1', 'api_key.expired'],
  });
  const [row] = await iora.sql('SELECT expired_at FROM api_key_families WHERE id = $1', [id]);
  assert.equal(row.expired_at.getTime(), expiresAt);
  const [event] = await iora.sql(`SELECT owner_id, payload FROM outbox_events WHERE topic = 'api_key.expired'`);
  assert.equal(event.owner_id, alice.ownerId);
  assert.deepEqual(Object.keys(event.payload).toSorted(), ['expiresAt', 'keyId', 'name']);
  assert.equal(iora.log.named('an API key expires soon').length, 2);
  assert.equal(iora.log.named('an API key has expired').length, 1);
  await stop();
});

test('what fell due while nothing ran is told late; what lay before the key was made is not told', async () => {
  const { alice, stop } = await start();
  const now = Date.now();
  const [long, week, hours] = [
    await create(alice, now + 30 * DAY_MS),
    await create(alice, now + 3 * DAY_MS),
    await create(alice, now + 6 * HOUR_MS),
  ];
  assert.deepEqual(await round(now), {}, 'nobody is told what was asked for a moment ago');
  assert.deepEqual(await round(now + 3 * DAY_MS - HOUR_MS), { expiring: 1, expired: 1 });
  assert.deepEqual((await told(week.id)).audit, ['api_key_expiring 1']);
  assert.deepEqual((await told(hours.id)).audit, ['api_key_expired']);
  assert.deepEqual(await round(now + 30 * DAY_MS - HOUR_MS), { expiring: 1, expired: 1 });
  assert.deepEqual((await told(long.id)).audit, ['api_key_expiring 1'], 'not also that there were seven days once');
  await stop();
});

test('a changed expiry is told anew, a revoked key is told nothing', async () => {
  const { alice, stop } = await start();
  const now = Date.now();
  const [moved, revoked] = [await create(alice, now + 10 * DAY_MS), await create(alice, now + 10 * DAY_MS)];
  assert.deepEqual(await round(now + 4 * DAY_MS), { expiring: 2 });
  await iora.output('keys.update', alice, {
    id: moved.id,
    expiresAt: new Date(now + 20 * DAY_MS).toISOString(),
  });
  await iora.output('keys.revoke', alice, { id: revoked.id });
  assert.deepEqual(await round(now + 9.5 * DAY_MS), {});
  assert.deepEqual(await round(now + 14 * DAY_MS), { expiring: 1 });
  assert.deepEqual((await told(moved.id)).audit, ['api_key_expiring 7', 'api_key_expiring 7']);
  assert.deepEqual(await round(now + 20 * DAY_MS), { expired: 1 }, 'what has come is not told as coming');
  assert.deepEqual((await told(revoked.id)).audit, ['api_key_expiring 7']);
  await stop();
});

test('ninety days after its end a key is cleared: no secret, no name, no answer; its id stays for the books', async () => {
  const { alice, stop } = await start();
  const now = Date.now();
  const [expired, revoked, live] = [
    await create(alice, now + DAY_MS, 'secret project'),
    await create(alice, null, 'secret project'),
    await create(alice, null, 'goes on'),
  ];
  await iora.output('keys.rotate', alice, { id: revoked.id });
  await iora.output('keys.revoke', alice, { id: revoked.id });
  assert.deepEqual(await round(now + 89 * DAY_MS), { expired: 1 });
  assert.deepEqual(await round(now + 90 * DAY_MS + HOUR_MS), { tombstoned: 1 });
  assert.deepEqual(await round(now + 92 * DAY_MS), { tombstoned: 1 });
  assert.deepEqual(await round(now + 92 * DAY_MS), {});
  const rows = await iora.sql(
    `SELECT f.name, f.tombstoned_at IS NOT NULL AS cleared, count(k.id)::int AS secrets
     FROM api_key_families f LEFT JOIN api_keys k ON k.family_id = f.id GROUP BY f.id ORDER BY f.id`,
  );
  assert.deepEqual(rows, [
    { name: 'deleted key', cleared: true, secrets: 0 },
    { name: 'deleted key', cleared: true, secrets: 0 },
    { name: 'goes on', cleared: false, secrets: 1 },
  ]);
  const { items } = await iora.output<{ items: KeyRecord[] }>('keys.list', alice);
  assert.deepEqual(
    items.map(({ id }) => id),
    [live.id],
  );
  for (const { id } of [expired, revoked]) {
    for (const [name, change] of [
      ['keys.get', {}],
      ['keys.update', { name: 'x' }],
      ['keys.revoke', {}],
      ['keys.rotate', {}],
    ] as const) {
      const outcome = await iora.call(name, alice, { id, ...change });
      assert.equal(outcome.ok ? 'ok' : outcome.error.code, 'not_found', name);
    }
    assert.equal((await told(id)).audit.at(-1), 'api_key_tombstoned');
  }
  assert.equal((await iora.bearer(live.key)).key?.id, live.id);
  await stop();
});

test('a living key loses secrets that ended ninety days ago, but never its newest', async () => {
  const { alice, stop } = await start();
  const now = Date.now();
  const [rotated, cutOff] = [await create(alice, null), await create(alice, null)];
  const [second, third] = [
    await iora.output<{ key: string }>('keys.rotate', alice, { id: rotated.id, overlapSeconds: 0 }),
    await iora.output<{ key: string }>('keys.rotate', alice, { id: rotated.id, overlapSeconds: 86_400 }),
  ];
  await iora.sql('UPDATE api_keys SET is_active = false, revoked_at = now(), leaked_at = now() WHERE family_id = $1', [
    cutOff.id,
  ]);
  const left = async (id: string) =>
    (await iora.sql('SELECT count(*)::int AS n FROM api_keys WHERE family_id = $1', [id]))[0].n;
  assert.deepEqual(await round(now + 89 * DAY_MS), {});
  assert.deepEqual(await round(now + 90 * DAY_MS + HOUR_MS), { thinned: 1 });
  assert.deepEqual([await left(rotated.id), await left(cutOff.id)], [2, 1]);
  assert.equal((await iora.bearer(second.key)).key?.id, rotated.id, 'it still has its overlap');
  assert.deepEqual(await round(now + 91 * DAY_MS + HOUR_MS), { thinned: 1 });
  assert.deepEqual([await left(rotated.id), await left(cutOff.id)], [1, 1]);
  assert.equal((await iora.bearer(third.key)).key?.id, rotated.id);

  await iora.sql(
    `INSERT INTO api_keys (id, family_id, user_id, key_hash, pepper_version, key_prefix, is_active, expires_at)
       SELECT ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, $1, $2, sha256(n::text::bytea), 1, 'old', false, now()
       FROM generate_series(1, 3) n`,
    [rotated.id, alice.userId],
  );
  for (const kept of [2, 1, 1]) {
    await iora.sql('SELECT * FROM expire_keys($1, 2)', [new Date(now + 100 * DAY_MS)]);
    assert.equal(await left(rotated.id), kept, 'a batch at a time');
  }
  await stop();
});

test('a round is bounded, what is left over is for the next, and a key that is being changed is not waited for', async () => {
  const { alice, stop } = await start();
  const made = [await create(alice, Date.now() + HOUR_MS), await create(alice, Date.now() + HOUR_MS)];
  const later = Date.now() + 2 * HOUR_MS;
  const expire = (batch: number) =>
    iora.sql('SELECT event, family_id AS id FROM expire_keys($1, $2)', [new Date(later), batch]);
  const seen = [await expire(1), await expire(1), await expire(1)].flat();
  assert.deepEqual(
    seen.map(({ event }) => event),
    ['expired', 'expired'],
  );
  assert.deepEqual(new Set(seen.map(({ id }) => id)), new Set(made.map(({ id }) => id)));

  const held = await create(alice, Date.now() + HOUR_MS);
  await iora.app.database.write(alice, async (tx) => {
    await tx.selectFrom('api_key_families').where('id', '=', held.id).select('id').forUpdate().execute();
    assert.deepEqual(await round(later), {});
  });
  assert.deepEqual(await round(later), { expired: 1 });
  await stop();
});
