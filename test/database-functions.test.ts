// The functions of the schema, called as the service calls them, several at a time where that is what they must bear.
import assert from 'node:assert/strict';
import { createHash, randomUUID } from 'node:crypto';
import { after, before, beforeEach, test } from 'node:test';
import pg from 'pg';
import { type TestCluster, type TestDatabase, testCluster, withClient } from './support/postgres.ts';
import { fillTables, testTenant } from './support/tenants.ts';

type Row = Record<string, unknown>;

const tenant = testTenant('a');
const AT_ONCE = 12;

let cluster: TestCluster;
let database: TestDatabase;
let superuser: pg.Client;
let service: pg.Pool;

before(async () => {
  cluster = await testCluster();
});
after(() => cluster.stop());

beforeEach(async (context) => {
  database = await cluster.database();
  superuser = new pg.Client({ connectionString: database.superuserUrl });
  await superuser.connect();
  service = new pg.Pool({ connectionString: database.apiUrl, max: AT_ONCE });
  if ('after' in context) {
    context.after(async () => {
      await service.end();
      await superuser.end();
      await database.drop();
    });
  }
});

async function findKey(hash: Buffer): Promise<Row | undefined> {
  const { rows } = await service.query<Row>('SELECT * FROM find_api_key($1)', [hash]);
  assert.ok(rows.length <= 1);
  return rows[0];
}

async function resolve(person: {
  subject: string;
  issuer?: string;
  email?: string;
  org?: string;
  role?: string;
  session?: string;
  issuedAt?: Date;
}): Promise<Row> {
  const email = person.email === undefined ? null : createHash('sha256').update(person.email).digest();
  const { rows } = await service.query<Row>('SELECT * FROM sign_in($1, $2, $3, $4, $5, $6, $7, $8, NULL, $9, $10)', [
    person.issuer ?? 'local',
    person.subject,
    person.session ?? null,
    person.issuedAt ?? new Date(),
    `user_${randomUUID()}`,
    email,
    person.org ?? null,
    person.org ?? null,
    `org_${randomUUID()}`,
    person.role ?? null,
  ]);
  assert.equal(rows.length, 1);
  const [row = {}] = rows;
  if (row['email_differs'] === true) {
    const sealed = [row['user_id'], Buffer.from('ciphertext'), email, 1, person.issuedAt ?? new Date()];
    await service.query('SELECT keep_email($1, $2, $3, $4, $5)', sealed);
  }
  return row;
}

function usageRow(change: Row = {}): Row {
  return {
    id: randomUUID(),
    owner_id: 'user_1',
    user_id: 'user_1',
    operation: 'get_price',
    endpoint: '/tools/get_price',
    method: 'POST',
    status_code: 200,
    cost: 1,
    billable: true,
    request_id: 'r',
    request_metadata: { transport: 'http', note: `it's "quoted" \\ über` },
    created_at: new Date().toISOString(),
    ...change,
  };
}

async function record(rows: Row[]): Promise<number> {
  const { rows: answer } = await service.query<{ n: number }>('SELECT record_usage($1) AS n', [JSON.stringify(rows)]);
  return answer[0]?.n ?? Number.NaN;
}

async function ensureMonths(...values: unknown[]): Promise<number> {
  const slots = values.map((_, index) => `$${index + 1}`).join(', ');
  const { rows } = await service.query<{ n: number }>(`SELECT ensure_month_partitions(${slots}) AS n`, values);
  return rows[0]?.n ?? Number.NaN;
}

function hasCode(code: string) {
  return (error: unknown) => error instanceof pg.DatabaseError && error.code === code;
}

test('a key is found with its family, its owner’s limits and the standing of everybody concerned', async () => {
  await fillTables(superuser, tenant);
  assert.equal(await findKey(createHash('sha256').update('nobody').digest()), undefined);
  const found = await findKey(tenant.keyHash);
  assert.deepEqual(found, {
    secret_id: tenant.secretId,
    family_id: tenant.familyId,
    name: tenant.marker,
    environment: 'live',
    permissions: ['tools:read'],
    key_prefix: `iora_pk_live_${tenant.marker}`,
    pepper_version: 1,
    secret_is_active: true,
    secret_expires_at: null,
    secret_revoked_at: null,
    family_expires_at: null,
    family_revoked_at: null,
    user_id: tenant.userId,
    org_id: tenant.orgId,
    owner_id: tenant.orgId,
    family_requests_per_minute: null,
    family_requests_per_month: null,
    tier: 'free',
    requests_per_minute: 60,
    requests_per_month: '10000',
    max_api_keys: 5,
    owner_active: true,
    creator_active: true,
    creator_role: 'owner',
    secret_leaked_at: null,
    allowed_cidrs: [],
    owner_epoch: '0',
  });

  const after = async (change: string) => {
    await superuser.query(change);
    const { tier, requests_per_minute, requests_per_month, max_api_keys, owner_active, creator_active, creator_role } =
      (await findKey(tenant.keyHash)) ?? {};
    return [tier, requests_per_minute, requests_per_month, max_api_keys, owner_active, creator_active, creator_role];
  };
  assert.deepEqual(
    await after(`UPDATE users SET tier = 'pro'`),
    ['free', 60, '10000', 5, true, true, 'owner'],
    'the organization pays',
  );
  assert.deepEqual(await after(`UPDATE organizations SET tier = 'enterprise'`), [
    'enterprise',
    100000,
    '1000000000',
    500,
    true,
    true,
    'owner',
  ]);
  assert.deepEqual(
    await after(
      `UPDATE organizations SET max_requests_per_minute = 999999, max_requests_per_month = 7, max_api_keys = 9`,
    ),
    ['enterprise', 100000, '7', 9, true, true, 'owner'],
    'an override holds, up to the ceiling',
  );
  assert.deepEqual(await after('UPDATE organizations SET suspended_at = now()'), [
    'enterprise',
    100000,
    '7',
    9,
    false,
    true,
    'owner',
  ]);
  assert.deepEqual(await after('UPDATE organizations SET suspended_at = NULL; UPDATE users SET is_active = false'), [
    'enterprise',
    100000,
    '7',
    9,
    true,
    false,
    'owner',
  ]);
  assert.deepEqual(await after('DELETE FROM organization_members'), ['enterprise', 100000, '7', 9, true, false, null]);
});

test('a personal key is under its person’s tier and standing', async () => {
  const { user_id: userId } = await resolve({ subject: 'alone' });
  const hash = createHash('sha256').update('alone').digest();
  const client = await service.connect();
  await client.query('BEGIN');
  await client.query(`SELECT set_config('app.owner_id', $1, true), set_config('app.user_id', $1, true)`, [userId]);
  const { rows } = await client.query<{ id: string }>(
    `INSERT INTO api_key_families (user_id, name, environment) VALUES ($1, 'mine', 'test') RETURNING id`,
    [userId],
  );
  await client.query(
    `INSERT INTO api_keys (family_id, user_id, key_hash, pepper_version, key_prefix) VALUES ($1, $2, $3, 1, 'p')`,
    [rows[0]?.id, userId, hash],
  );
  await client.query('COMMIT');
  client.release();
  await superuser.query(`UPDATE users SET tier = 'pro', suspended_at = now()`);
  const { owner_id, org_id, tier, requests_per_minute, owner_active, creator_active, creator_role } =
    (await findKey(hash)) ?? {};
  assert.deepEqual(
    [owner_id, org_id, tier, requests_per_minute, owner_active, creator_active, creator_role],
    [userId, null, 'pro', 1000, false, false, null],
  );
});

test('many first calls of one person make one person, one organization and one membership', async () => {
  const answers = await Promise.all(
    Array.from({ length: AT_ONCE }, () => resolve({ subject: 's', email: 'e', org: 'acme' })),
  );
  // All but the last word: who comes first has no email yet.
  assert.equal(new Set(answers.map((answer) => JSON.stringify({ ...answer, email_differs: null }))).size, 1);
  assert.equal(answers[0]?.['role'], 'owner');
  const { rows } = await superuser.query(
    `SELECT (SELECT count(*)::integer FROM users) AS users, (SELECT count(*)::integer FROM organizations) AS organizations,
            (SELECT count(*)::integer FROM organization_members) AS members`,
  );
  assert.deepEqual(rows, [{ users: 1, organizations: 1, members: 1 }]);
});

test('of many people arriving together at a new organization exactly one owns it', async () => {
  const answers = await Promise.all(
    Array.from({ length: AT_ONCE }, (_, index) => resolve({ subject: `s${index}`, org: 'acme' })),
  );
  const roles = answers.map((answer) => answer['role']).sort();
  assert.deepEqual(roles, [...Array.from({ length: AT_ONCE - 1 }, () => 'member'), 'owner']);
  assert.equal(new Set(answers.map((answer) => answer['org_id'])).size, 1);
});

test('a role that is given holds, one that is not given stays', async () => {
  assert.equal((await resolve({ subject: 'one', org: 'acme', role: 'viewer' }))['role'], 'viewer');
  assert.equal((await resolve({ subject: 'one', org: 'acme' }))['role'], 'viewer');
  assert.equal((await resolve({ subject: 'one', org: 'acme', role: 'admin' }))['role'], 'admin');
  assert.equal((await resolve({ subject: 'two', org: 'acme' }))['role'], 'member', 'not the first');
  const alone = await resolve({ subject: 'one' });
  assert.deepEqual(
    [alone['org_id'], alone['role'], alone['org_active'], alone['owner_id']],
    [null, null, null, alone['user_id']],
  );
  await assert.rejects(resolve({ subject: 'three', org: 'acme', role: 'emperor' }), hasCode('23514'));
});

test('an organization is the issuer’s that vouches for it: the same name elsewhere is another', async () => {
  const first = await resolve({ subject: 'one', org: 'acme' });
  const other = await resolve({ subject: 'one', issuer: 'elsewhere', org: 'acme' });
  assert.notEqual(other['org_id'], first['org_id']);
  assert.notEqual(other['user_id'], first['user_id']);
  const { rows } = await superuser.query('SELECT issuer, slug FROM organizations ORDER BY issuer');
  assert.deepEqual(rows, [
    { issuer: 'elsewhere', slug: null },
    { issuer: 'local', slug: 'acme' },
  ]);
});

/** What the provider has taken back, at that moment. */
function over(kind: string, externalId: string, at = new Date()) {
  return superuser.query(`INSERT INTO identity_deletions VALUES ('local', $1, $2, $3)`, [kind, externalId, at]);
}

test('a session that was revoked signs nobody in, another of the same person does', async () => {
  assert.equal((await resolve({ subject: 's', session: 'sess_1' }))['user_active'], true);
  await over('session', 'sess_1');
  assert.equal((await resolve({ subject: 's', session: 'sess_1' }))['user_active'], false);
  assert.equal((await resolve({ subject: 's', session: 'sess_2' }))['user_active'], true);
});

test('whom the provider deleted before they were known here is nobody', async () => {
  await over('user', 's');
  const { rows } = await service.query(
    `SELECT * FROM sign_in('local', 's', NULL, now(), 'user_s', NULL, NULL, NULL, NULL, 'org_x', NULL)`,
  );
  assert.deepEqual(rows, []);
  assert.deepEqual((await superuser.query('SELECT FROM users')).rows, []);
});

test('an organization that is over is not made anew by a token that still names it', async () => {
  await over('organization', 'acme');
  const answer = await resolve({ subject: 's', org: 'acme' });
  assert.deepEqual([answer['org_id'], answer['user_active']], [null, false]);
  assert.deepEqual((await superuser.query('SELECT FROM organizations')).rows, []);
});

test('a membership that ended is made anew only by a token issued after its end', async () => {
  await resolve({ subject: 'owner', org: 'acme' });
  const ended = new Date('2026-01-01T12:00:00Z');
  await over('member', 'acme s', ended);
  const at = (seconds: number) => new Date(ended.getTime() + seconds * 1_000);
  const early = await resolve({ subject: 's', org: 'acme', role: 'admin', issuedAt: at(0) });
  assert.equal(early['user_active'], false);
  assert.deepEqual((await superuser.query('SELECT count(*)::int AS n FROM organization_members')).rows, [{ n: 1 }]);
  const late = await resolve({ subject: 's', org: 'acme', role: 'admin', issuedAt: at(1) });
  assert.deepEqual([late['user_active'], late['role']], [true, 'admin']);
});

test('a token gains no membership for a deleted person, nor in a deleted organization', async () => {
  await resolve({ subject: 'owner', org: 'acme' });
  await resolve({ subject: 'gone' });
  await superuser.query(`UPDATE users SET deleted_at = now(), is_active = false WHERE subject = 'gone'`);
  assert.equal((await resolve({ subject: 'gone', org: 'acme' }))['user_active'], false);
  await superuser.query('UPDATE organizations SET deleted_at = now(), is_active = false');
  const late = await resolve({ subject: 'late', org: 'acme' });
  assert.deepEqual([late['org_active'], late['role']], [false, null]);
  assert.deepEqual((await superuser.query('SELECT count(*)::int AS n FROM organization_members')).rows, [{ n: 1 }]);
});

test('an older token does not take back the role that a newer one gave', async () => {
  const at = (second: number) => new Date(Date.UTC(2026, 0, 1, 12, 0, second));
  const role = async (given: string, second: number) =>
    (await resolve({ subject: 's', org: 'acme', role: given, issuedAt: at(second) }))['role'];
  assert.equal(await role('viewer', 10), 'viewer');
  assert.equal(await role('admin', 20), 'admin');
  assert.equal(await role('viewer', 15), 'admin');
  assert.equal(await role('member', 20), 'member', 'of the same second the later word holds');
});

test('the administrator who made the organization owns it', async () => {
  await resolve({ subject: 'first', org: 'acme', role: 'member' });
  await superuser.query(`UPDATE organizations SET created_by_subject = 'maker'`);
  assert.equal((await resolve({ subject: 'maker', org: 'acme', role: 'admin' }))['role'], 'owner');
  assert.equal((await resolve({ subject: 'other', org: 'acme', role: 'admin' }))['role'], 'admin');
  assert.equal((await resolve({ subject: 'maker', org: 'acme', role: 'viewer' }))['role'], 'viewer');
});

test('an email another active person has does not stop a sign-in, and is one person’s at a time', async () => {
  const answers = await Promise.all(
    Array.from({ length: AT_ONCE }, (_, index) => resolve({ subject: `s${index}`, email: 'shared' })),
  );
  assert.equal(new Set(answers.map((answer) => answer['user_id'])).size, AT_ONCE);
  const emails = async () =>
    (await superuser.query<{ n: number }>('SELECT count(email_blind_index)::integer AS n FROM users')).rows[0]?.n;
  assert.equal(await emails(), 1);
  await superuser.query('UPDATE users SET is_active = false');
  await resolve({ subject: 'late', email: 'shared' });
  assert.equal(await emails(), 2, 'who is no longer active holds no email back');
});

test('signing in is noted at most once a minute, and is no change of the person', async () => {
  await resolve({ subject: 's' });
  const read = async () =>
    (
      await superuser.query<{ login: Date; updated: Date }>(
        'SELECT last_login_at AS login, updated_at AS updated FROM users',
      )
    ).rows[0];
  const first = await read();
  await resolve({ subject: 's' });
  assert.deepEqual(await read(), first);
  await superuser.query(`UPDATE users SET last_login_at = now() - interval '61 seconds'`);
  await resolve({ subject: 's' });
  const second = await read();
  assert.ok(second !== undefined && first !== undefined && second.login > first.login);
  assert.deepEqual(second.updated, first.updated);
  await superuser.query('UPDATE users SET suspended_at = now()');
  assert.ok(((await read())?.updated ?? 0) > first.updated);
  assert.equal((await resolve({ subject: 's' }))['user_active'], false);
});

test('usage is written once, however often a batch is sent', async () => {
  const batch = Array.from({ length: 5_000 }, () => usageRow());
  const [first] = batch;
  assert.equal(await record(batch.slice(0, 1)), 1);
  assert.equal(await record(batch), 4_999);
  assert.equal(await record(batch), 0);
  assert.equal(await record([]), 0);
  const { rows } = await superuser.query<Row>('SELECT * FROM usage_logs WHERE id = $1', [first?.['id']]);
  assert.deepEqual(rows[0], {
    ...first,
    org_id: null,
    api_key_id: null,
    key_secret_id: null,
    symbol: null,
    response_time_ms: null,
    error_message: null,
    created_at: new Date(String(first?.['created_at'])),
  });
  await assert.rejects(record([usageRow({ owner_id: 'user_2' })]), hasCode('23514'));
  await assert.rejects(record([usageRow({ error_message: 'the user Eve failed' })]), hasCode('23514'));
});

test('usage of a month that has no partition is refused, and taken once the month is made', async () => {
  await superuser.query(
    `DO $$ DECLARE p text; BEGIN FOR p IN SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'usage_logs'::regclass
     LOOP EXECUTE 'DROP TABLE ' || p; END LOOP; END $$`,
  );
  const row = usageRow();
  await assert.rejects(record([row]), hasCode('23514'));
  assert.equal(await ensureMonths(0, row['created_at']), 1);
  assert.equal(await record([row]), 1);
});

test('months are made once by many at once, bounded by UTC, never by default', async () => {
  assert.equal(await ensureMonths(3), 0, 'migrating made them');
  await service.query(`SET TIME ZONE 'Pacific/Auckland'`);
  const created = await Promise.all(Array.from({ length: AT_ONCE }, () => ensureMonths(6)));
  assert.deepEqual(
    created.filter((n) => n > 0),
    [6],
    'three more months of two tables',
  );
  const { rows } = await superuser.query<{ name: string; bound: string }>(
    `SELECT relname AS name, pg_get_expr(relpartbound, oid) AS bound FROM pg_class WHERE relispartition AND relkind = 'r' ORDER BY 1`,
  );
  assert.equal(rows.length, 14);
  for (const { name, bound } of rows) {
    const [, year, month] = /_(\d{4})_(\d\d)$/.exec(name) ?? [];
    const next = new Date(Date.UTC(Number(year), Number(month), 1)).toISOString().slice(0, 10);
    await superuser.query(`SET TIME ZONE 'UTC'`);
    assert.equal(
      bound.replaceAll(/ 00:00:00\+00/g, ''),
      `FOR VALUES FROM ('${year}-${month}-01') TO ('${next}')`,
      name,
    );
  }
  for (const [ahead, from] of [
    [-1, 0],
    [25, 0],
    [0, -100],
    [0, 400],
  ] as const) {
    await assert.rejects(
      ensureMonths(ahead, new Date(Date.now() + from * 86_400_000)),
      hasCode('22023'),
      `${ahead} ${from}`,
    );
  }
  await assert.rejects(ensureMonths(null), hasCode('22023'));
});

test('uses of keys add up when many count the same keys in any order', async () => {
  await fillTables(superuser, tenant);
  await superuser.query(
    `INSERT INTO api_keys (family_id, user_id, org_id, key_hash, pepper_version, key_prefix)
     SELECT family_id, user_id, org_id, sha256(n::text::bytea), 1, 'p' FROM api_keys, generate_series(1, 40) n`,
  );
  const { rows } = await superuser.query<{ id: string }>('SELECT id FROM api_keys ORDER BY id');
  const ids = rows.map((row) => row.id);
  const latest = new Date('2026-01-01T00:00:05Z');
  await Promise.all(
    Array.from({ length: AT_ONCE }, async (_, index) => {
      const order = index % 2 === 0 ? ids : ids.toReversed();
      const times = order.map(() => new Date(latest.getTime() - index * 1_000));
      const answer = await service.query('SELECT record_key_use($1, $2, $3) AS n', [order, times, order.map(() => 2)]);
      assert.deepEqual(answer.rows, [{ n: ids.length }]);
    }),
  );
  await service.query('SELECT record_key_use($1, $2, $3)', [
    [ids[0], ids[0], randomUUID()],
    [latest, latest, latest],
    [1, 1, 1],
  ]);
  const { rows: used } = await superuser.query('SELECT id, usage_count, last_used_at FROM api_keys ORDER BY id');
  assert.deepEqual(
    used,
    ids.map((id, index) => ({ id, usage_count: String(2 * AT_ONCE + (index === 0 ? 2 : 0)), last_used_at: latest })),
  );
});

test('a definer function leaves no trace of itself in the transaction', async () => {
  await fillTables(superuser, tenant);
  await withClient(database.apiUrl, async (client) => {
    await client.query('BEGIN');
    await client.query('SELECT * FROM find_api_key($1)', [tenant.keyHash]);
    await client.query(
      `SELECT * FROM sign_in('local', 's', NULL, now(), 'user_s', NULL, 'acme', 'acme', NULL, 'org_acme', NULL)`,
    );
    await client.query('SELECT record_usage($1)', [JSON.stringify([usageRow()])]);
    await client.query('SELECT record_key_use($1, $2, $3)', [[tenant.secretId], [new Date()], [1]]);
    const { rows } = await client.query(
      `SELECT current_setting('iora.definer') AS definer, current_setting('iora.key_hash') AS hash, current_user AS role`,
    );
    assert.deepEqual(rows, [{ definer: '', hash: '', role: 'iora_api' }]);
    await client.query('COMMIT');
  });
});
