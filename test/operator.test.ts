// What the operator does on the command line, beside two servers on one PostgreSQL that believe what they remember for a
// minute: only an announcement explains why either changes its mind.
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { blindIndex } from '../src/lib/envelope.ts';
import { type RunningServer, startServer } from '../src/main/serve.ts';
import { loadConfig } from '../src/platform/config.ts';
import { localSecret } from '../src/platform/local-secrets.ts';
import { openLog } from '../src/platform/log.ts';
import { runCli } from './support/cli-process.ts';
import { type TestCluster, type TestDatabase, testCluster, withClient } from './support/postgres.ts';
import { issueToken } from './support/token.ts';

let cluster: TestCluster;
let database: TestDatabase;
let dataDir: string;
let settings: Record<string, string>;
let servers: RunningServer[];
before(async () => {
  cluster = await testCluster();
  database = await cluster.database();
  dataDir = await mkdtemp(join(tmpdir(), 'iora-operator-'));
  settings = { IORA_DATA_DIR: dataDir, DATABASE_URL: database.apiUrl, MIGRATE_ON_START: 'false', KEY_CACHE_TTL: '60' };
  const config = loadConfig({ ...settings, PORT: '0', MARKET_SOURCES: 'simulated' });
  servers = [await startServer(config, openLog('silent')), await startServer(config, openLog('silent'))];
});
after(async () => {
  await Promise.all((servers ?? []).map((server) => server.stop()));
  await cluster.stop();
  await rm(dataDir, { recursive: true, force: true });
});

interface Answered {
  readonly status: number;
  readonly headers: Headers;
  // biome-ignore lint/suspicious/noExplicitAny: answers of whatever a test asks for
  readonly body: any;
}

async function call(
  serverIndex: number,
  credential: string,
  [method, path]: readonly [string, string],
  body?: object,
): Promise<Answered> {
  const response = await fetch(`${servers[serverIndex]?.url}${path}`, {
    method,
    headers: { authorization: `Bearer ${credential}`, 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  return { status: response.status, headers: response.headers, body: await response.json() };
}

const keysList = ['GET', '/user/api-keys'] as const;
const price = (server: number, credential: string) =>
  call(server, credential, ['POST', '/tools/get_price'], { symbol: 'BTC' });
const statuses = async (credentials: readonly string[], path = keysList) =>
  (await Promise.all([0, 1].flatMap((server) => credentials.map((credential) => call(server, credential, path))))).map(
    ({ status }) => status,
  );

function cli(words: readonly string[], change: Record<string, string> = {}) {
  return runCli(words, { ...settings, ...change });
}

/** The output of a command that must succeed. */
async function done(words: readonly string[], change?: Record<string, string>) {
  const { exitCode, stdout, stderr } = await cli([...words, '--json'], change);
  assert.deepEqual([exitCode, stderr], [0, ''], words.join(' '));
  return JSON.parse(stdout);
}

async function sql(text: string, values: unknown[] = []): Promise<Record<string, unknown>[]> {
  return withClient(database.superuserUrl, async (client) => (await client.query(text, values)).rows);
}

let people = 0;
/** Somebody whom both servers remember, with a key of theirs. */
async function somebody(org?: string) {
  people += 1;
  const email = `person-${people}@example.com`;
  const token = await issueToken(dataDir, { email, ...(org === undefined ? {} : { org }) });
  const { body } = await call(0, token, ['POST', '/user/api-keys'], {
    name: 'a key',
    permissions: ['tools:read', 'keys:read'],
  });
  assert.deepEqual(await statuses([token, body.key]), [200, 200, 200, 200]);
  const [row] = await sql('SELECT user_id, owner_id FROM api_key_families WHERE id = $1', [body.id]);
  return { email, token, key: String(body.key), userId: String(row?.['user_id']), ownerId: String(row?.['owner_id']) };
}

/** What the owner's trail says the operator did, newest last. */
const trail = (ownerId: string) =>
  sql(
    `SELECT actor_type, actor_id, action, resource_id, outcome, changes FROM audit_logs
     WHERE owner_id = $1 AND (actor_type = 'operator') ORDER BY created_at`,
    [ownerId],
  );

test('who is granted by email is an administrator from the next call on, and no longer once that is revoked', async () => {
  const { email, token, userId } = await somebody();
  const health = async () =>
    (await Promise.all([0, 1].map((server) => call(server, token, ['GET', '/health/database'])))).map(
      ({ body }) => body.postgresql !== undefined,
    );
  assert.deepEqual(await health(), [false, false]);

  const granted = await done(['admin', 'grant', email.toUpperCase()]);
  const { effectiveOn, of, ...rest } = granted;
  assert.deepEqual([effectiveOn, of], [2, 2]);
  assert.deepEqual([rest.userId, rest.permissions], [userId, ['admin:read', 'admin:write']]);
  assert.deepEqual(await health(), [true, true]);
  const listed = (await done(['admin', 'list'])).items;
  assert.deepEqual(
    listed.filter((item: { id: string }) => item.id === userId),
    [{ id: userId, email, permissions: ['admin:read', 'admin:write'], active: true, suspendedAt: null }],
  );

  const lessened = await done(['admin', 'revoke', userId, '--permissions', 'admin:write']);
  assert.deepEqual(lessened.permissions, ['admin:read']);
  assert.deepEqual(await health(), [true, true]);
  const revoked = await done(['admin', 'revoke', email]);
  assert.deepEqual([revoked.permissions, revoked.effectiveOn, revoked.of], [[], 2, 2]);
  assert.deepEqual(await health(), [false, false]);
  assert.doesNotMatch((await cli(['admin', 'list'])).stdout, new RegExp(userId));

  const both = ['admin:read', 'admin:write'];
  const told = { actor_type: 'operator', actor_id: 'operator', resource_id: userId, outcome: 'succeeded' };
  assert.deepEqual(await trail(userId), [
    { ...told, action: 'admin_granted', changes: { before: [], after: both } },
    { ...told, action: 'admin_revoked', changes: { before: both, after: ['admin:read'] } },
    { ...told, action: 'admin_revoked', changes: { before: ['admin:read'], after: [] } },
  ]);
  const own = (await trail('operator')).filter(({ resource_id }) => resource_id === userId);
  assert.deepEqual(
    own.map(({ action, changes }) => [action, changes]),
    [
      ['admin_granted', { permissions: both, now: both }],
      ['admin_revoked', { permissions: ['admin:write'], now: ['admin:read'] }],
      ['admin_revoked', { permissions: both, now: [] }],
    ],
  );
});

test('nobody is granted anything whom nobody knows, who is suspended, or whose email two people have', async () => {
  const refused = async (words: readonly string[], expected: RegExp) => {
    const { exitCode, stdout, stderr } = await cli(words);
    assert.deepEqual([exitCode, stdout], [1, '']);
    assert.match(stderr, expected);
  };
  await refused(['admin', 'grant', 'nobody@example.com'], /must have signed in once\. \(not_found\)/);
  await refused(['admin', 'grant', 'user_nobody'], /must have signed in once\. \(not_found\)/);
  const [one, two] = [await somebody(), await somebody()];
  await done(['tenants', 'suspend', one.userId]);
  await refused(['admin', 'grant', one.email], /is suspended or closed\. \(not_found\)/);

  // As after a second data key: the first to sign in since then was not recognised as having the email of another.
  const secret = Buffer.alloc(32, 7).toString('base64');
  const index = blindIndex(one.email, { version: 2, secret: Buffer.from(secret, 'base64') });
  await sql('UPDATE users SET email_blind_index = $2 WHERE id = $1', [two.userId, index]);
  const older = Buffer.from(localSecret(dataDir, 'data-keys').secret).toString('base64');
  const both = await cli(['admin', 'grant', one.email], { DATA_KEYS: `2:${secret},1:${older}` });
  assert.match(both.stderr, new RegExp(`name one by its id, ${[one.userId, two.userId].sort().join(', ')}`));
});

test('a suspended organization is refused by every instance from the answer on, and a resumed one at once let in again', async () => {
  const owner = await somebody('acme');
  const elsewhere = await issueToken(dataDir, { email: owner.email });
  assert.deepEqual(await statuses([elsewhere]), [200, 200]);

  const suspended = await done(['tenants', 'suspend', 'acme', '--reason', 'unpaid since March']);
  assert.deepEqual([suspended.id, suspended.effectiveOn, suspended.of], [owner.ownerId, 2, 2]);
  assert.deepEqual(await statuses([owner.token, owner.key]), [401, 401, 401, 401]);
  assert.deepEqual(await statuses([elsewhere]), [200, 200], 'what else its people do is not touched');
  const again = await done(['tenants', 'suspend', owner.ownerId]);
  assert.equal(again.suspendedAt, suspended.suspendedAt, 'the first moment stands');
  const shown = await done(['tenants', 'show', 'acme']);
  assert.deepEqual([shown.suspendedAt, shown.kind, shown.members], [suspended.suspendedAt, 'organization', 1]);

  const resumed = await done(['tenants', 'resume', 'acme']);
  assert.deepEqual([resumed.suspendedAt, resumed.effectiveOn, resumed.of], [null, 2, 2]);
  assert.deepEqual(await statuses([owner.token, owner.key]), [200, 200, 200, 200]);

  const told = { actor_type: 'operator', actor_id: 'operator', resource_id: owner.ownerId, outcome: 'succeeded' };
  assert.deepEqual(await trail(owner.ownerId), [
    { ...told, action: 'tenant_suspended', changes: { reason: 'unpaid since March' } },
    { ...told, action: 'tenant_suspended', changes: {} },
    { ...told, action: 'tenant_resumed', changes: {} },
  ]);
  const own = (await trail('operator')).filter(({ resource_id }) => resource_id === owner.ownerId);
  assert.deepEqual(
    own.map(({ action }) => action),
    ['tenant_suspended', 'tenant_suspended', 'tenant_resumed'],
  );
});

test('a suspended person is refused everywhere; the keys they made for an organization go on working, but show no keys', async () => {
  const person = await somebody();
  const token = await issueToken(dataDir, { email: person.email, org: 'of-a-leaver' });
  const permissions = ['tools:read', 'keys:read'];
  const made = await call(0, token, ['POST', '/user/api-keys'], { name: 'of the organization', permissions });
  assert.deepEqual(await statuses([token, made.body.key]), [200, 200, 200, 200]);

  await done(['tenants', 'suspend', person.email]);
  assert.deepEqual(await statuses([person.token, person.key, token]), [401, 401, 401, 401, 401, 401]);
  assert.deepEqual(await statuses([made.body.key]), [403, 403]);
  assert.equal((await price(1, made.body.key)).status, 200);
  const { stderr } = await cli(['keys', 'list', '--user', person.email]);
  assert.match(stderr, /is suspended or closed/);

  await done(['tenants', 'resume', person.userId]);
  assert.deepEqual(await statuses([person.token, person.key, token, made.body.key]), Array(8).fill(200));
});

test('tenants are listed page by page, without what is personal, and shown by id, slug or email', async () => {
  const { email, userId } = await somebody('listed');
  const all: { id: string; kind: string; slug: string | null; keys: number }[] = [];
  let cursor: string | null = null;
  let text = '';
  do {
    const page: { items: typeof all; nextCursor: string | null } = await done([
      'tenants',
      'list',
      '--limit',
      '4',
      ...(cursor === null ? [] : ['--cursor', cursor]),
    ]);
    assert.ok(page.items.length <= 4);
    all.push(...page.items);
    text += JSON.stringify(page);
    cursor = page.nextCursor;
  } while (cursor !== null);
  const known = await sql('SELECT id FROM users UNION ALL SELECT id FROM organizations ORDER BY id');
  assert.deepEqual(
    all.map(({ id }) => id),
    known.map(({ id }) => id),
  );
  assert.doesNotMatch(text, /@example\.com/);
  const listed = all.find(({ slug }) => slug === 'listed');
  assert.deepEqual([listed?.kind, listed?.keys], ['organization', 1]);

  const byEmail = await done(['tenants', 'show', email]);
  assert.deepEqual([byEmail.id, byEmail.email, byEmail.kind, byEmail.issuer], [userId, email, 'person', 'iora:local']);
  assert.deepEqual(byEmail.limits, { requestsPerMinute: 60, requestsPerMonth: 10_000, maxApiKeys: 5 });
  assert.deepEqual(await done(['tenants', 'show', userId]), byEmail);
  await Promise.all(
    ['nowhere', 'org_nowhere', 'nobody@example.com', "' or 1=1"].map(async (tenant) => {
      assert.match((await cli(['tenants', 'show', tenant])).stderr, /\(not_found\)/, tenant);
    }),
  );
});

test('a new tier is in the limits that the next call is told, on both instances', async () => {
  const { key, ownerId } = await somebody('rising');
  const limits = async () =>
    Promise.all(
      [0, 1].map(async (server) => {
        const { status, headers } = await price(server, key);
        assert.equal(status, 200);
        return headers.get('x-ratelimit-limit');
      }),
    );
  assert.deepEqual(await limits(), ['60', '60']);
  const changed = await done(['tenants', 'set-tier', '--tier', 'pro', '--org-id', ownerId]);
  assert.deepEqual(
    [changed.ownerId, changed.previousTier, changed.tier, changed.effectiveOn, changed.of],
    [ownerId, 'free', 'pro', 2, 2],
  );
  assert.deepEqual(await limits(), ['1000', '1000']);

  const refusals: [string[], RegExp][] = [
    [['--tier', 'gold', '--org-id', ownerId], /must be one of enterprise, free, pro \(invalid_input\)/],
    [['--tier', 'pro'], /--user-id: say whose tier it is/],
    [['--tier', 'pro', '--org-id', ownerId, '--user-id', 'user_x'], /--org-id: cannot be given beside userId/],
    [['--tier', 'pro', '--org-id', 'org_nowhere'], /There is no tenant org_nowhere\. \(not_found\)/],
  ];
  await Promise.all(
    refusals.map(async ([words, expected]) => {
      assert.match((await cli(['tenants', 'set-tier', ...words])).stderr, expected, words.join(' '));
    }),
  );
  const wrongUse = await cli(['tenants', 'set-tier', '--tier', 'pro', '--user', 'ada@example.com']);
  assert.deepEqual([wrongUse.exitCode, wrongUse.stdout], [2, '']);
});

test('with an identity provider the command line knows those who have signed in, by email or id, and makes nobody', async () => {
  const { email, userId, ownerId } = await somebody('provided');
  await somebody('of-others');
  const provider = {
    OIDC_ISSUER: 'https://login.example.com',
    OIDC_AUDIENCE: 'iora',
    PUBLIC_URL: 'https://iora.example.com',
  };
  const counted = async () =>
    (await sql('SELECT (SELECT count(*) FROM users) + (SELECT count(*) FROM organizations) AS n'))[0];
  const before = await counted();
  const counts = await Promise.all(
    [
      ['--user', email, '--org', 'provided'],
      ['--user', userId, '--org', ownerId],
      ['--user', email.toUpperCase()],
    ].map(async (words) => (await done(['keys', 'list', ...words], provider)).items.length),
  );
  assert.deepEqual(counts, [1, 1, 0]);
  const refusals: [string[], number, RegExp][] = [
    [['--user', 'new@example.com'], 1, /must have signed in once\. \(not_found\)/],
    [['--user', 'user_new'], 1, /must have signed in once\. \(not_found\)/],
    [['--user', email, '--org', 'of-others'], 1, /is no member of an organization of-others\. \(not_found\)/],
    [['--user', email, '--org', 'new'], 1, /is no member of an organization new\. \(not_found\)/],
    [['--user', 'ada'], 2, /--user must be an email address or user_\.\.\./],
    [['--user', email, '--org', 'A B'], 2, /--org must be the slug of an organization or org_\.\.\./],
  ];
  await Promise.all(
    refusals.map(async ([words, exitCode, expected]) => {
      const refused = await cli(['keys', 'list', ...words], provider);
      assert.deepEqual([refused.exitCode, refused.stdout], [exitCode, ''], words.join(' '));
      assert.match(refused.stderr, expected);
    }),
  );
  await sql(`UPDATE organization_members SET role = 'viewer' WHERE user_id = $1 AND org_id = $2`, [userId, ownerId]);
  const asViewer = await cli(['keys', 'create', '--user', email, '--org', 'provided', '--name', 'x'], provider);
  assert.match(asViewer.stderr, /needs the permission keys:write\. \(forbidden\)/);
  assert.deepEqual(await counted(), before);
});
