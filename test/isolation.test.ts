// Tenants against each other, with the login of the service and whatever SQL it may think of: every table, view and
// partition the catalogue knows, every verb, whatever tenant is set or was set before on the same connection.
import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';
import pg from 'pg';
import { type TestCluster, type TestDatabase, testCluster, withClient } from './support/postgres.ts';
import { fillTables, type TestTenant, testTenant } from './support/tenants.ts';

interface Relation {
  readonly name: string;
  readonly isPartition: boolean;
  readonly columns: readonly Column[];
}
interface Column {
  readonly name: string;
  readonly isGenerated: boolean;
}

/** Columns that say whose a row is. */
const tenantColumns = ['owner_id', 'user_id', 'org_id'];
const mine = testTenant('a');
const theirs = testTenant('b');
/** SQLSTATEs by which the database refuses: no right, or (also a row-level violation) insufficient privilege; append-only. */
const refused = '42501';
/** SQLSTATE of a row that contradicts itself, as one whose owner is not its organization. */
const violated = '23514';

/** Every function by which the service reaches across tenants, each under a name of its own in `iora.definer`. */
const definersOfTheService = [
  'bump_epochs',
  'claim_outbox_events',
  'count_keys_by_pepper',
  'delete_membership',
  'delete_organization',
  'delete_person',
  'end_idle_overlaps',
  'ensure_person',
  'expire_keys',
  'find_api_key',
  'find_owner',
  'find_person',
  'forget_identity_messages',
  'forget_service_nonces',
  'keep_email',
  'list_administrators',
  'list_tenants',
  'mark_outbox_delivered',
  'receive_webhook',
  'record_key_use',
  'record_usage',
  'report_leaked_key',
  'revoke_session',
  'set_owner_suspended',
  'set_owner_tier',
  'set_platform_permissions',
  'show_tenant',
  'sign_in',
  'update_person',
  'upsert_membership',
  'upsert_organization',
];

/** Tables that only those functions reach: no role has any right on them. */
const behindDefiners = ['identity_deletions', 'webhook_messages'];

let cluster: TestCluster;
let database: TestDatabase;
let superuser: pg.Client;
let relations: Relation[];

before(async () => {
  cluster = await testCluster();
});
after(() => cluster.stop());

beforeEach(async (context) => {
  database = await cluster.database();
  superuser = new pg.Client({ connectionString: database.superuserUrl });
  await superuser.connect();
  for (const tenant of [mine, theirs]) await fillTables(superuser, tenant);
  relations = await readRelations();
  if ('after' in context) {
    context.after(async () => {
      await superuser.end();
      await database.drop();
    });
  }
});

async function readRelations(): Promise<Relation[]> {
  const { rows } = await superuser.query<Relation>(
    `SELECT c.relname AS name, c.relispartition AS "isPartition",
            json_agg(json_build_object('name', a.attname, 'isGenerated', a.attgenerated <> '' OR a.attidentity <> '') ORDER BY a.attnum) AS columns
     FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
     WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
     GROUP BY c.oid ORDER BY 1`,
  );
  return rows;
}

function ofTenants(): Relation[] {
  return relations.filter(
    (relation) => relation.name === 'users' || relation.name === 'organizations' || hasTenantColumn(relation),
  );
}

function hasTenantColumn(relation: Relation): boolean {
  return relation.columns.some((column) => tenantColumns.includes(column.name));
}

/** Tables of tenants, and the partitions in which the other has rows. */
async function withTheirRows(): Promise<Relation[]> {
  const found: Relation[] = [];
  for (const relation of ofTenants()) {
    const { rows } = await superuser.query(`SELECT FROM ${relation.name} t WHERE t::text LIKE '%${theirs.marker}%'`);
    if (rows.length > 0) found.push(relation);
  }
  return found;
}

/** Every row of the other tenant with its place and version on disk: equal before and after means nobody touched it. */
async function theirRows(): Promise<string[]> {
  const found: string[] = [];
  for (const { name } of relations.filter((relation) => !relation.isPartition)) {
    const isView =
      (await superuser.query(`SELECT FROM pg_views WHERE schemaname = 'public' AND viewname = $1`, [name])).rows
        .length > 0;
    if (isView) continue;
    const { rows } = await superuser.query<{ row: string }>(
      `SELECT concat_ws(' ', t.tableoid::regclass, t.ctid, t.xmin, t.xmax, t::text) AS row FROM ${name} t WHERE t::text LIKE $1`,
      [`%${theirs.marker}%`],
    );
    found.push(...rows.map(({ row }) => row));
  }
  return found.sort();
}

/** What the service is able to be: its own login, or a login that may do more and takes on the role for each transaction. */
const logins: readonly { readonly label: string; url(): string; readonly begin: string }[] = [
  { label: 'the login iora_api', url: () => database.apiUrl, begin: 'BEGIN' },
  {
    label: 'a superuser with SET LOCAL ROLE',
    url: () => database.superuserUrl,
    begin: 'BEGIN; SET LOCAL ROLE iora_api',
  },
];

const setTenant = (tenant: TestTenant) =>
  `SELECT set_config('app.owner_id', '${tenant.orgId}', true), set_config('app.user_id', '${tenant.userId}', true)`;

const asMine = `BEGIN; ${setTenant(mine)}`;

/** What came before on the connection, and what the transaction says it is. Only the first two may see rows of `mine`. */
const situations: readonly { readonly label: string; readonly earlier?: string; readonly settings: string }[] = [
  { label: 'as a tenant', settings: setTenant(mine) },
  {
    label: 'as a tenant, where the other was just served',
    earlier: `${setTenant(theirs)}; COMMIT`,
    settings: setTenant(mine),
  },
  { label: 'as nobody', settings: 'SELECT 1' },
  {
    label: 'as nobody, where the other was just served',
    earlier: `${setTenant(theirs)}; COMMIT`,
    settings: 'SELECT 1',
  },
  {
    label: 'as nobody, where the other was rolled back',
    earlier: `${setTenant(theirs)}; ROLLBACK`,
    settings: 'SELECT 1',
  },
  {
    label: 'as the empty name',
    settings: `SELECT set_config('app.owner_id', '', true), set_config('app.user_id', '', true)`,
  },
  {
    label: 'as a tenant, after the look-up of the other’s key',
    settings: `${setTenant(mine)}; SELECT * FROM find_api_key('\\x${theirs.keyHash.toString('hex')}')`,
  },
  ...definersOfTheService.map((name) => ({
    label: `as a tenant that calls itself ${name}`,
    settings: `${setTenant(mine)}; SELECT set_config('iora.definer', '${name}', true), set_config('iora.key_hash', '${theirs.keyHash.toString('hex')}', true)`,
  })),
];

/**
 * Runs `statement` in a transaction after `preparation`, as one message; answers its rows, or the SQLSTATE that refused it.
 * A refused transaction is left for the next attempt to roll back.
 */
async function attempt(client: pg.Client, preparation: string, statement: string) {
  try {
    const answer: unknown = await client.query(`ROLLBACK; ${preparation}; ${statement}; COMMIT`);
    // Several statements in one message answer with a list, of which ours is the last but one.
    return { rows: (answer as pg.QueryResult<Record<string, unknown>>[]).at(-2)?.rows ?? [], code: undefined };
  } catch (error) {
    assert.ok(error instanceof pg.DatabaseError, String(error));
    return { rows: [], code: error.code };
  }
}

/** Statements that would read or change rows of `relation`, in every form the rights on its columns may leave open. */
function statementsFor({ name, columns }: Relation): string[] {
  const writable = columns.filter((column) => !column.isGenerated);
  const list = writable.map((column) => column.name).join(', ');
  return [
    `SELECT * FROM ${name}`,
    `SELECT t FROM ${name} t`,
    `SELECT count(*) FROM ${name} HAVING count(*) > 1`,
    `COPY (SELECT * FROM ${name}) TO '/dev/null'`,
    ...columns.map((column) => `SELECT ${column.name} FROM ${name}`),
    `SELECT ${columns[0]?.name} FROM ${name} WHERE ${columns[0]?.name}::text LIKE '%${theirs.marker}%' FOR UPDATE`,
    `UPDATE ${name} SET ${columns[0]?.name} = ${columns[0]?.name} WHERE true`,
    ...writable.map((column) => `UPDATE ${name} SET ${column.name} = DEFAULT`),
    `DELETE FROM ${name}`,
    `TRUNCATE ${name} CASCADE`,
    `INSERT INTO ${name} (${list}) SELECT ${list} FROM ${name} ON CONFLICT DO NOTHING`,
    `MERGE INTO ${name} t USING (SELECT 1) s ON true WHEN MATCHED THEN DELETE`,
    `ALTER TABLE ${name} DISABLE ROW LEVEL SECURITY`,
    `DROP TABLE ${name} CASCADE`,
    `LOCK TABLE ${name} IN ACCESS EXCLUSIVE MODE`,
  ];
}

for (const login of logins) {
  test(`${login.label}: no statement on any table reads, changes or removes a row of the other`, async () => {
    const untouched = await theirRows();
    const tables = (await withTheirRows()).filter((relation) => !relation.isPartition);
    assert.deepEqual(
      tables,
      ofTenants().filter((relation) => !relation.isPartition),
      'the other has rows in every table',
    );
    const tried = { statements: 0, answered: 0, seenOwn: 0 };
    for (const situation of situations) {
      const earlier = situation.earlier === undefined ? '' : `${login.begin}; ${situation.earlier}; `;
      const preparation = `${earlier}${login.begin}; ${situation.settings}`;
      await withClient(login.url(), async (client) => {
        for (const relation of await withTheirRows()) {
          for (const statement of statementsFor(relation)) {
            const { rows, code } = await attempt(client, preparation, statement);
            const seen = JSON.stringify(rows);
            const where = `${situation.label}: ${statement}`;
            assert.ok(!seen.includes(theirs.marker), where);
            if (!situation.label.startsWith('as a tenant')) assert.equal(rows.length, 0, where);
            tried.statements += 1;
            if (code === undefined) tried.answered += 1;
            if (seen.includes(mine.marker)) tried.seenOwn += 1;
          }
        }
      });
    }
    assert.deepEqual(await theirRows(), untouched);
    assert.ok(
      tried.answered > 500 && tried.seenOwn > 100,
      `enough statements were answered to mean something: ${JSON.stringify(tried)}`,
    );
  });
}

test('no row can be written in the name of the other, nor moved to it', async () => {
  await withClient(database.apiUrl, async (client) => {
    const wouldBe = (column: string) => (column === 'user_id' ? theirs.userId : theirs.orgId);
    let tried = 0;
    for (const { name, columns } of ofTenants()) {
      const { rows } = await superuser.query<{ row: Record<string, unknown> }>(
        `SELECT to_jsonb(t) AS row FROM ${name} t WHERE t::text LIKE $1 LIMIT 1`,
        [`%${mine.marker}%`],
      );
      const own = rows[0]?.row;
      if (own === undefined) continue; // a month without rows; the others of its kind are tried
      const isKeyedByOwner = name === 'users' || name === 'organizations';
      const naming = columns.filter(
        (column) => tenantColumns.includes(column.name) || (isKeyedByOwner && column.name === 'id'),
      );
      for (const column of naming.filter(({ isGenerated }) => !isGenerated).map((candidate) => candidate.name)) {
        const moved = await attempt(client, asMine, `UPDATE ${name} SET ${column} = '${wouldBe(column)}'`);
        assert.equal(moved.code, refused, `${name}.${column} moved`);

        const list = (await insertable(name)).join(', ');
        if (list === '') continue;
        const row = JSON.stringify({ ...own, id: 'cccccccc-0000-4000-8000-000000000001', [column]: wouldBe(column) });
        const values = `jsonb_populate_record(NULL::${name}, ${pg.escapeLiteral(row)})`;
        const { code } = await attempt(client, asMine, `INSERT INTO ${name} (${list}) SELECT ${list} FROM ${values}`);
        // One's own trail may name anybody as the one who acted.
        if (name === 'audit_logs' && column === 'user_id') assert.equal(code, undefined);
        else assert.ok(code === refused || code === violated, `${name} with ${column} of the other`);
        tried += 1;
      }
    }
    assert.ok(tried >= 5, `inserts were tried: ${tried}`);
  });

  async function insertable(name: string): Promise<string[]> {
    const { rows } = await superuser.query<{ column: string }>(
      `SELECT attname AS column FROM pg_attribute
       WHERE attrelid = $1::regclass AND attnum > 0 AND attgenerated = '' AND has_column_privilege('iora_api', attrelid, attnum, 'INSERT')`,
      [name],
    );
    return rows.map((row) => row.column);
  }
});

test('constraints tell nothing about the other: the same refusal for what exists and what does not', async () => {
  const family = (change: Record<string, string>) =>
    insert('api_key_families', {
      id: 'cccccccc-0000-4000-8000-000000000001',
      user_id: mine.userId,
      org_id: mine.orgId,
      name: 'n',
      environment: 'live',
      ...change,
    });
  const secret = (change: Record<string, string>) =>
    insert('api_keys', {
      id: 'cccccccc-0000-4000-8000-000000000002',
      family_id: mine.familyId,
      user_id: mine.userId,
      org_id: mine.orgId,
      key_hash: `\\x${'cc'.repeat(32)}`,
      pepper_version: '1',
      key_prefix: 'p',
      ...change,
    });
  const pairs: readonly [string, string, string][] = [
    [family({ user_id: theirs.userId }), family({ user_id: 'user_nobody' }), 'a creator'],
    [family({ org_id: theirs.orgId }), family({ org_id: 'org_nobody' }), 'an organization'],
    [secret({ user_id: theirs.userId }), secret({ user_id: 'user_nobody' }), 'the maker of a secret'],
    [secret({ org_id: theirs.orgId }), secret({ org_id: 'org_nobody' }), 'the organization of a secret'],
    [
      secret({ family_id: theirs.familyId }),
      secret({ family_id: 'dddddddd-0000-4000-8000-000000000009' }),
      'the family of a secret',
    ],
  ];
  await withClient(database.apiUrl, async (client) => {
    for (const [existing, absent, label] of pairs) {
      const codes = [(await attempt(client, asMine, existing)).code, (await attempt(client, asMine, absent)).code];
      assert.ok(codes[0] !== undefined, `${label} is refused`);
      assert.equal(codes[0], codes[1], label);
    }
    assert.equal((await attempt(client, asMine, family({}))).code, undefined, 'and one’s own is accepted');
    assert.equal((await attempt(client, asMine, secret({}))).code, undefined);
  });

  function insert(table: string, row: Record<string, string>): string {
    const values = Object.values(row).map((value) => pg.escapeLiteral(value));
    return `INSERT INTO ${table} (${Object.keys(row).join(', ')}) VALUES (${values.join(', ')})`;
  }
});

test('every table that names a tenant has row-level security forced and a policy; partitions have it and no rights', async () => {
  const { rows } = await superuser.query<{
    name: string;
    enabled: boolean;
    forced: boolean;
    partition: boolean;
    policies: number;
    grantees: string[];
  }>(
    `SELECT c.relname AS name, c.relrowsecurity AS enabled, c.relforcerowsecurity AS forced, c.relispartition AS partition,
            (SELECT count(*)::integer FROM pg_policy WHERE polrelid = c.oid AND 'iora_api'::regrole = ANY (polroles)) AS policies,
            ARRAY(SELECT DISTINCT grantee::regrole::text FROM aclexplode(c.relacl) WHERE grantee <> c.relowner) AS grantees
     FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')`,
  );
  const names = new Set(ofTenants().map((relation) => relation.name));
  const tables = rows.filter((row) => names.has(row.name));
  assert.ok(tables.length >= 8 + 8, 'eight tables and the months of two of them');
  for (const table of tables) {
    assert.ok(table.enabled, table.name);
    if (table.partition) assert.deepEqual([table.policies, table.grantees], [0, []], table.name);
    else assert.ok(table.forced && table.policies > 0, table.name);
  }
  for (const name of behindDefiners) {
    const table = rows.find((row) => row.name === name);
    assert.deepEqual([table?.enabled, table?.forced, table?.grantees], [true, true, []], name);
  }
  assert.deepEqual(
    rows
      .map((row) => row.name)
      .filter((name) => !names.has(name) && !behindDefiners.includes(name))
      .sort(),
    ['instances', 'schema_migrations', 'service_nonces', 'tiers'],
    'tables without a tenant; a new one belongs here only if it holds nothing of any',
  );
});

test('the roles of the service can do no more than they must', async () => {
  const { rows } = await superuser.query(
    `SELECT rolname, rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication AS "more" FROM pg_roles
     WHERE rolname IN ('iora_owner', 'iora_migrator', 'iora_maintainer', 'iora_api', 'iora_worker', 'iora_readonly') ORDER BY 1`,
  );
  assert.equal(rows.length, 6);
  for (const row of rows) assert.equal(row.more, false, row.rolname);

  const { rows: member } = await superuser.query(
    `SELECT roleid::regrole::text AS role, member::regrole::text FROM pg_auth_members
     WHERE roleid::regrole::text = 'iora_owner' OR member::regrole::text IN ('iora_api', 'iora_worker', 'iora_readonly') ORDER BY 1, 2`,
  );
  assert.deepEqual(
    member.filter((row) => row.member.startsWith('iora_')),
    [
      { role: 'iora_owner', member: 'iora_maintainer' },
      { role: 'iora_owner', member: 'iora_migrator' },
    ],
  );
  const { rows: owned } = await superuser.query(
    `SELECT DISTINCT relowner::regrole::text AS owner FROM pg_class WHERE relnamespace = 'public'::regnamespace
     UNION SELECT DISTINCT proowner::regrole::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace`,
  );
  assert.deepEqual(owned, [{ owner: 'iora_owner' }]);
  await withClient(database.apiUrl, async (client) => {
    for (const statement of [
      'CREATE TABLE public.t (id integer)',
      'SET ROLE iora_owner',
      'SET ROLE iora_worker',
      'CREATE SCHEMA s',
    ]) {
      assert.equal((await attempt(client, 'BEGIN', statement)).code, refused, statement);
    }
  });
});

test('functions: none is open to everybody, and each role may call exactly these', async () => {
  const { rows } = await superuser.query<{ grantee: string; functions: string[] }>(
    `SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS grantee, array_agg(p.proname::text ORDER BY p.proname::text) AS functions
     FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
     WHERE p.pronamespace = 'public'::regnamespace AND a.grantee <> p.proowner GROUP BY a.grantee ORDER BY 1`,
  );
  assert.deepEqual(rows, [
    {
      grantee: 'iora_api',
      functions: [...definersOfTheService, 'ensure_month_partitions'].sort(),
    },
    { grantee: 'iora_worker', functions: ['ensure_month_partitions'] },
  ]);
  const { rows: definers } = await superuser.query<{ name: string; config: string[] }>(
    `SELECT proname AS name, proconfig AS config FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prosecdef`,
  );
  assert.equal(definers.length, definersOfTheService.length + 1);
  // Tables of the caller's own (pg_temp) come last, so that they never stand in for ours.
  for (const { name, config } of definers) assert.ok(config.includes('search_path=pg_catalog, public, pg_temp'), name);
});

test('a temporary table of the caller does not stand in for one of ours inside a definer function', async () => {
  await withClient(database.apiUrl, async (client) => {
    await client.query('CREATE TEMPORARY TABLE api_keys (key_hash bytea, id uuid)');
    await client.query('CREATE TEMPORARY TABLE tiers (name text)');
    const { rows } = await client.query('SELECT * FROM find_api_key($1)', [mine.keyHash]);
    assert.equal(rows.length, 1);
    assert.equal(rows[0].family_id, mine.familyId);
  });
});

test('the worker and analytics see what is listed for them and nothing else', async () => {
  const readable = async (role: string) => {
    const found: Record<string, number> = {};
    for (const { name } of relations) {
      await superuser.query(`SET ROLE ${role}`);
      const counted = await superuser
        .query<{ n: number }>(`SELECT count(*)::integer AS n FROM ${name}`)
        .catch(() => undefined);
      await superuser.query('RESET ROLE');
      if (counted !== undefined) found[name] = counted.rows[0]?.n ?? 0;
    }
    return Object.keys(found).sort();
  };
  assert.deepEqual(await readable('iora_worker'), [
    'instances',
    'outbox_events',
    'schema_migrations',
    'tiers',
    'usage_logs',
  ]);
  assert.deepEqual(await readable('iora_readonly'), ['owners_by_tier', 'usage_daily']);

  await superuser.query('SET ROLE iora_readonly');
  const { rows: daily } = await superuser.query('SELECT operation, calls, owners FROM usage_daily');
  const { rows: owners } = await superuser.query('SELECT kind, owners FROM owners_by_tier ORDER BY kind');
  await superuser.query('RESET ROLE');
  assert.deepEqual(daily, [{ operation: 'get_price', calls: '2', owners: '2' }]);
  assert.deepEqual(owners, [
    { kind: 'organization', owners: '2' },
    { kind: 'user', owners: '2' },
  ]);
});

test('the owner of the schema is under row-level security as well', async () => {
  await superuser.query('SET ROLE iora_owner');
  for (const { name, isPartition } of ofTenants()) {
    if (isPartition) continue; // archiving reads months as their owner
    const { rows } = await superuser.query(`SELECT FROM ${name}`);
    assert.equal(rows.length, 0, name);
  }
  await superuser.query(`BEGIN; SELECT set_config('iora.key_hash', '${mine.keyHash.toString('hex')}', true)`);
  const { rows } = await superuser.query('SELECT id FROM api_keys');
  assert.deepEqual(rows, [{ id: mine.secretId }]);
  await superuser.query('ROLLBACK; RESET ROLE');
});

test('audit rows cannot be changed by anybody, whole months can leave', async () => {
  const { rows: months } = await superuser.query<{ name: string }>(
    `SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = 'audit_logs'::regclass ORDER BY 1`,
  );
  assert.ok(months.length >= 4);
  for (const role of ['postgres', 'iora_owner']) {
    for (const name of ['audit_logs', ...months.map((month) => month.name)]) {
      for (const statement of [`UPDATE ${name} SET action = 'x'`, `DELETE FROM ${name}`, `TRUNCATE ${name}`]) {
        const { code } = await attempt(superuser, `BEGIN; SET LOCAL ROLE ${role}`, statement);
        assert.equal(code, refused, `${role}: ${statement}`);
      }
    }
  }
  await superuser.query('ROLLBACK');
  const oldest = months[0]?.name ?? '';
  await superuser.query('SET ROLE iora_maintainer');
  await superuser.query(`ALTER TABLE audit_logs DETACH PARTITION ${oldest} CONCURRENTLY`);
  await superuser.query(`DROP TABLE ${oldest}`);
  await superuser.query('RESET ROLE');
});
