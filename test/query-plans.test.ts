// Each index is there for a query; here each query is seen to use its index, and the key look-up to stay one probe.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import pg from 'pg';
import { type TestCluster, type TestDatabase, testCluster, withClient } from './support/postgres.ts';
import { fillTables, testTenant } from './support/tenants.ts';

interface PlanNode {
  readonly 'Node Type': string;
  readonly 'Relation Name'?: string;
  readonly 'Index Name'?: string;
  readonly 'Index Cond'?: string;
  readonly Plans?: readonly PlanNode[];
}

const tenant = testTenant('a');
/** Enough that reading a whole table costs visibly more than its index. */
const ROWS = 2_000;

let cluster: TestCluster;
let database: TestDatabase;
let superuser: pg.Client;

before(async () => {
  cluster = await testCluster();
  database = await cluster.database();
  superuser = new pg.Client({ connectionString: database.superuserUrl });
  await superuser.connect();
  await fillTables(superuser, tenant);
  // Months still empty are read whole, which costs nothing and would only hide a month that is not.
  await superuser.query(
    `DO $$ DECLARE p text; BEGIN FOR p IN SELECT c.oid::regclass FROM pg_class c WHERE c.relispartition AND c.relkind = 'r'
       AND c.relname NOT LIKE '%' || to_char(now() AT TIME ZONE 'UTC', '_YYYY_MM') LOOP EXECUTE 'DROP TABLE ' || p; END LOOP; END $$`,
  );
  await superuser.query(
    `INSERT INTO users (id, issuer, subject, email_ciphertext, email_blind_index, data_key_version, stripe_customer_id)
       SELECT 'user_' || n, 'test', n, 'x', sha256(n::text::bytea), 1, 'cus_' || n FROM generate_series(1, ${ROWS}) n;
     INSERT INTO organizations (id, name, slug, issuer, external_id, stripe_subscription_id)
       SELECT 'org_' || n, n, n, 'test', n, 'sub_' || n FROM generate_series(1, ${ROWS}) n;
     INSERT INTO organization_members (org_id, user_id)
       SELECT CASE WHEN n % 10 = 0 THEN '${tenant.orgId}' ELSE 'org_' || n END, 'user_' || n FROM generate_series(1, ${ROWS}) n;
     INSERT INTO api_key_families (id, user_id, org_id, name, environment, revoked_at)
       SELECT md5('f' || n)::uuid, 'user_' || n, CASE WHEN n % 2 = 0 THEN '${tenant.orgId}' END, n, 'live', CASE WHEN n % 3 > 0 THEN now() END
       FROM generate_series(1, ${ROWS}) n;
     INSERT INTO api_keys (family_id, user_id, org_id, key_hash, pepper_version, key_prefix)
       SELECT id, user_id, org_id, sha256(name::bytea), 1, 'p' FROM api_key_families WHERE name <> '${tenant.marker}';
     INSERT INTO api_keys (family_id, user_id, org_id, key_hash, pepper_version, key_prefix, is_active, revoked_at)
       SELECT '${tenant.familyId}', '${tenant.userId}', '${tenant.orgId}', sha256(('ended' || n)::bytea), 1, 'p', false, now()
       FROM generate_series(1, ${ROWS}) n;
     INSERT INTO usage_logs (id, user_id, owner_id, operation, endpoint, method, status_code, cost, billable, request_id, created_at)
       SELECT gen_random_uuid(), 'user_' || n, 'user_' || n, 'get_price', '/', 'POST', 200, 1, true, n, now() FROM generate_series(1, ${ROWS}) n;
     INSERT INTO audit_logs (user_id, owner_id, actor_type, action, outcome)
       SELECT 'user_' || n, 'user_' || n, 'session', 'keys.create', 'succeeded' FROM generate_series(1, ${ROWS}) n;
     INSERT INTO billing_events (user_id, event_type, stripe_event_id, raw_event, status, processed_at, created_at)
       SELECT 'user_' || n, 'x', 'evt_' || n, '{}', 'completed', now(), now() FROM generate_series(1, ${ROWS}) n;
     INSERT INTO outbox_events (topic, owner_id, payload, delivered_at)
       SELECT 'x', 'user_' || n, '{}', now() FROM generate_series(1, ${ROWS}) n;
     INSERT INTO service_nonces (key_id, nonce, expires_at)
       SELECT 'k', md5(n::text), now() + interval '1 minute' * n FROM generate_series(1, ${ROWS}) n;
     INSERT INTO webhook_messages (provider, message_id, event_type, received_at)
       SELECT 'clerk', n, 'user.created', now() - n * interval '1 minute' FROM generate_series(1, ${ROWS}) n;
     INSERT INTO identity_deletions (issuer, kind, external_id, deleted_at)
       SELECT 'test', 'session', n, now() - n * interval '1 minute' FROM generate_series(1, ${ROWS}) n;
     ANALYZE`,
  );
});
after(async () => {
  await superuser.end();
  await cluster.stop();
});

function nodesOf(plan: PlanNode): PlanNode[] {
  return [plan, ...(plan.Plans ?? []).flatMap(nodesOf)];
}

/** The indexes a query goes through as `role`, with the tenant set; partitions' indexes under their parent's name. */
async function indexesOf(query: string, role: string): Promise<string[]> {
  await superuser.query(
    `BEGIN; SET LOCAL ROLE ${role}; SELECT set_config('app.owner_id', '${tenant.orgId}', true), set_config('app.user_id', '${tenant.userId}', true)`,
  );
  const { rows } = await superuser.query<{ 'QUERY PLAN': [{ Plan: PlanNode }] }>(`EXPLAIN (FORMAT JSON) ${query}`);
  await superuser.query('ROLLBACK');
  const nodes = nodesOf((rows[0] ?? assert.fail())['QUERY PLAN'][0].Plan);
  const scanned = nodes.filter((node) => node['Node Type'] === 'Seq Scan').map((node) => node['Relation Name']);
  assert.deepEqual(scanned, [], `no table is read whole by ${query}`);
  const names = nodes.flatMap((node) => node['Index Name'] ?? []);
  const { rows: found } = await superuser.query<{ name: string }>(
    `SELECT DISTINCT coalesce(i.inhparent, c.oid)::regclass::text AS name FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
     WHERE c.relname = ANY ($1) ORDER BY 1`,
    [names],
  );
  return found.map((row) => row.name);
}

const now = new Date();
const [monthStart, monthEnd] = [0, 1].map((ahead) =>
  new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + ahead)).toISOString(),
);
const thisMonth = `created_at >= '${monthStart}' AND created_at < '${monthEnd}'`;

/** What each index is for: role, query, index. */
const served: readonly [role: string, query: string, index: string][] = [
  ['iora_api', 'SELECT * FROM users', 'users_pkey'],
  ['iora_owner', `SELECT * FROM users WHERE issuer = 'test' AND subject = '7'`, 'users_issuer_subject_key'],
  ['iora_owner', `SELECT * FROM users WHERE is_active AND email_blind_index = sha256('7')`, 'users_active_email_key'],
  [
    'iora_owner',
    `SELECT * FROM users WHERE platform_permissions <> '{}' AND id > '' ORDER BY id LIMIT 10`,
    'users_administrators_idx',
  ],
  ['iora_owner', `SELECT * FROM users WHERE stripe_customer_id = 'cus_7'`, 'users_stripe_customer_key'],
  ['iora_owner', `SELECT * FROM organizations WHERE slug = '7'`, 'organizations_slug_key'],
  [
    'iora_owner',
    `SELECT * FROM organizations WHERE issuer = 'test' AND external_id = '7'`,
    'organizations_issuer_external_id_key',
  ],
  [
    'iora_owner',
    `SELECT * FROM organizations WHERE stripe_subscription_id = 'sub_7'`,
    'organizations_stripe_subscription_key',
  ],
  ['iora_api', `SELECT * FROM organization_members WHERE org_id = '${tenant.orgId}'`, 'organization_members_pkey'],
  [
    'iora_api',
    `SELECT * FROM organization_members WHERE user_id = '${tenant.userId}'`,
    'organization_members_user_idx',
  ],
  ['iora_api', `SELECT * FROM api_key_families WHERE id = '${tenant.familyId}'`, 'api_key_families_owner_key'],
  ['iora_api', 'SELECT * FROM api_key_families ORDER BY id DESC LIMIT 100', 'api_key_families_owner_key'],
  [
    'iora_api',
    'SELECT count(*) FROM api_key_families WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())',
    'api_key_families_live_idx',
  ],
  ['iora_api', `SELECT id FROM api_keys WHERE family_id = '${tenant.familyId}'`, 'api_keys_family_idx'],
  [
    'iora_api',
    `SELECT id FROM api_keys WHERE family_id = ANY (ARRAY['${tenant.familyId}']::uuid[]) AND is_active ORDER BY id FOR UPDATE`,
    'api_keys_active_idx',
  ],
  [
    'iora_owner',
    `SELECT * FROM api_key_families WHERE revoked_at IS NULL AND expired_at IS NULL AND expires_at <= now() ORDER BY expires_at LIMIT 10 FOR UPDATE`,
    'api_key_families_expiry_idx',
  ],
  [
    'iora_owner',
    `SELECT * FROM api_key_families WHERE tombstoned_at IS NULL AND least(revoked_at, expires_at) <= now() - interval '90 days'
     ORDER BY least(revoked_at, expires_at) LIMIT 10 FOR UPDATE`,
    'api_key_families_ended_idx',
  ],
  [
    'iora_owner',
    `SELECT id FROM api_keys WHERE (revoked_at IS NOT NULL OR expires_at IS NOT NULL)
     AND least(revoked_at, expires_at) <= now() - interval '90 days' ORDER BY least(revoked_at, expires_at) LIMIT 10 FOR UPDATE`,
    'api_keys_ended_idx',
  ],
  [
    'iora_owner',
    `SELECT * FROM api_keys WHERE ends_when_idle AND is_active AND superseded_at <= now() ORDER BY superseded_at LIMIT 10 FOR UPDATE`,
    'api_keys_idle_idx',
  ],
  ['iora_api', `SELECT sum(cost) FROM usage_logs WHERE ${thisMonth}`, 'usage_logs_owner_idx'],
  ['iora_api', 'SELECT * FROM audit_logs ORDER BY created_at DESC, id DESC LIMIT 100', 'audit_logs_owner_idx'],
  ['iora_api', 'SELECT id FROM billing_events ORDER BY created_at DESC LIMIT 100', 'billing_events_owner_idx'],
  ['postgres', `SELECT * FROM billing_events WHERE stripe_event_id = 'evt_7'`, 'billing_events_stripe_event_key'],
  [
    'postgres',
    `SELECT * FROM billing_events WHERE status = 'pending' ORDER BY received_at LIMIT 10`,
    'billing_events_pending_idx',
  ],
  [
    'iora_worker',
    'SELECT * FROM outbox_events WHERE delivered_at IS NULL AND available_at <= now() ORDER BY available_at LIMIT 10',
    'outbox_events_undelivered_idx',
  ],
  [
    'iora_owner',
    'SELECT ctid FROM service_nonces WHERE expires_at < now() ORDER BY expires_at LIMIT 10',
    'service_nonces_expires_at_idx',
  ],
  [
    'postgres',
    'SELECT * FROM webhook_messages WHERE received_at < now() ORDER BY received_at LIMIT 10',
    'webhook_messages_received_idx',
  ],
  [
    'postgres',
    `SELECT * FROM identity_deletions WHERE kind IN ('session', 'membership', 'member') AND deleted_at < now() ORDER BY deleted_at LIMIT 10`,
    'identity_deletions_forgettable_idx',
  ],
];

test('every query that an index is there for goes through it', async () => {
  await superuser.query(
    `CREATE POLICY plans ON users TO iora_owner USING (true); CREATE POLICY plans ON organizations TO iora_owner USING (true)`,
  );
  for (const [role, query, index] of served) {
    const indexes = await indexesOf(query, role);
    // Where two policies let rows through, each may bring an index of its own.
    assert.ok(indexes.includes(index), `${role}: ${query} goes through ${indexes}`);
  }
});

test('every index of ours is there for a query named here', async () => {
  const { rows } = await superuser.query<{ name: string }>(
    `SELECT c.relname AS name FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('i', 'I') AND NOT c.relispartition`,
  );
  const used = new Set(served.map(([, , index]) => index));
  const keys = [
    'api_key_expiry_notices_pkey',
    'api_key_families_pkey',
    'api_keys_key_hash_key', // the test below
    'api_keys_pkey',
    'audit_logs_pkey',
    'billing_events_pkey',
    'identity_deletions_pkey',
    'instances_pkey',
    'organizations_pkey',
    'outbox_events_pkey',
    'schema_migrations_name_key',
    'schema_migrations_pkey',
    'service_nonces_pkey',
    'tiers_pkey',
    'usage_logs_pkey',
    'webhook_messages_pkey',
  ];
  assert.deepEqual(
    rows
      .map((row) => row.name)
      .filter((name) => !used.has(name))
      .sort(),
    keys,
  );
});

test('looking a key up is one probe of the hash, then single rows by their keys', async () => {
  await withClient(database.superuserUrl, async (client) => {
    const plans: PlanNode[] = [];
    client.on('notice', (notice) => {
      const json = /plan:\s*(\{.*\})\s*$/s.exec(notice.message ?? '')?.[1];
      if (json !== undefined) plans.push((JSON.parse(json) as { Plan: PlanNode }).Plan);
    });
    await client.query(
      `LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_nested_statements = on;
     SET auto_explain.log_format = json; SET auto_explain.log_level = 'notice'; SET ROLE iora_api`,
    );
    // The sixth call is the first that may run on a plan made for any key.
    for (let call = 0; call < 8; call += 1) {
      plans.length = 0;
      const { rows } = await client.query('SELECT * FROM find_api_key($1)', [tenant.keyHash]);
      assert.equal(rows.length, 1);
      const nodes = plans.flatMap(nodesOf);
      assert.deepEqual(
        nodes.filter((node) => /Seq Scan|Bitmap/.test(node['Node Type'])),
        [],
      );
      const scans = nodes.filter((node) => node['Index Name'] !== undefined);
      const probed = scans.map((node) =>
        node['Relation Name'] === 'organization_members' ? node['Relation Name'] : node['Index Name'],
      );
      assert.deepEqual(probed.sort(), [
        'api_key_families_pkey',
        'api_keys_key_hash_key',
        'organization_members', // either of its indexes leads to one person's few rows
        'organizations_pkey',
        'tiers_pkey',
        'users_pkey',
      ]);
      for (const scan of scans) assert.ok(scan['Index Cond'] !== undefined, `${scan['Index Name']} is probed`);
    }
  });
});
