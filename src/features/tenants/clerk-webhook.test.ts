// Clerk's webhooks at the outermost door: what is refused, what takes effect once, and who is refused from the answer on.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import pg from 'pg';
import { startApplication, testSecrets } from '../../../test/support/application.ts';
import {
  type ClerkApplication,
  deletedMessage,
  ISSUER,
  identityTables,
  membershipMessage,
  newWebhookSecret,
  organizationMessage,
  sessionMessage,
  signatureOf,
  startClerkApplication,
  userMessage,
} from '../../../test/support/clerk.ts';
import { type TestCluster, type TestDatabase, testCluster } from '../../../test/support/postgres.ts';
import { startTcpProxy, throughProxy } from '../../../test/support/tcp-proxy.ts';
import type { OrganizationRole, Principal } from '../../kernel/context.ts';
import { runJob } from '../../main/jobs.ts';

const START = Date.UTC(2026, 0, 1);
const at = (n: number) => START + n * 60_000;
const MINUTE_MS = 60_000;

const secrets = testSecrets();
let cluster: TestCluster;
let database: TestDatabase;
let one: ClerkApplication;
let two: ClerkApplication;
before(async () => {
  cluster = await testCluster();
  database = await cluster.database();
  one = await startClerkApplication(database, { secrets });
  two = await startClerkApplication(database, { secrets });
});
after(async () => {
  await Promise.all([one.close(), two.close()]);
  await cluster.stop();
});

let people = 0;
/** A person of Clerk whom nobody knows yet. */
const newSubject = () => `user_${++people}`;
let organizations = 0;
const newOrganization = () => `org_${++organizations}`;

interface Session {
  readonly sessionId?: string | null;
  readonly org?: string;
  readonly role?: OrganizationRole;
  readonly issuedAt?: number;
}

function claimsOf(subject: string, { sessionId = null, org, role = 'member', issuedAt = at(0) }: Session = {}) {
  const organization = org === undefined ? null : { externalId: org, slug: null, name: org, role };
  return { issuer: ISSUER, subject, email: null, organization, sessionId, issuedAt: new Date(issuedAt) };
}

const signIn = (application: ClerkApplication, subject: string, session?: Session): Promise<Principal> =>
  application.app.sessions.principalOf(claimsOf(subject, session));

const isRefused = (answer: Promise<Principal>): Promise<boolean> =>
  answer.then(
    () => false,
    (error: { code?: string }) => {
      assert.equal(error.code, 'unauthenticated');
      return true;
    },
  );

async function taken(application: ClerkApplication, ...messages: Parameters<ClerkApplication['deliver']>[0][]) {
  for (const message of messages) {
    const { status, body } = await application.deliver(message);
    assert.deepEqual([status, body], [200, { outcome: 'applied' }], message.type);
  }
}

async function newKey(principal: Principal, permissions = ['tools:read']): Promise<string> {
  const { key } = await one.output<{ key: string }>('keys.create', principal, { name: 'a key', permissions });
  for (const application of [one, two]) await application.bearer(key);
  return key;
}

const userRow = async (subject: string) => (await one.sql('SELECT * FROM users WHERE subject = $1', [subject]))[0];
const auditOf = async (ownerId: string) =>
  (await one.sql('SELECT * FROM audit_logs WHERE owner_id = $1 ORDER BY created_at', [ownerId])).filter(
    (row) => row.actor_type === 'system',
  );
/** Every row a message may touch, so that "nothing happened" can be seen. */
async function everything(): Promise<string[]> {
  const messages = await one.sql('SELECT * FROM webhook_messages');
  const audit = await one.sql(`SELECT id FROM audit_logs WHERE actor_type = 'system'`);
  return [...(await identityTables(one, secrets)), ...[...messages, ...audit].map((row) => JSON.stringify(row)).sort()];
}

test('401, and nothing happened: forged, altered, of another secret, stale, from the future, without a header', async () => {
  const subject = newSubject();
  await taken(one, userMessage('created', subject, at(1), { first: 'Ada' }));
  const untouched = await everything();
  const body = JSON.stringify({ object: 'event', ...userMessage('updated', subject, at(2), { banned: true }) });
  const altered = body.replace('"banned":true', '"banned":false');
  const good = signatureOf(body);
  const without = (name: string) => Object.fromEntries(Object.entries(good).filter(([header]) => header !== name));
  const aged = (ms: number) => signatureOf(body, { sentAt: new Date(Date.now() + ms) });
  const refusals: Record<string, [string | Buffer, Record<string, string>]> = {
    'a made-up signature': [body, { ...good, 'svix-signature': `v1,${Buffer.alloc(32).toString('base64')}` }],
    'no signature in it': [body, { ...good, 'svix-signature': 'v1' }],
    'a version nobody made': [body, { ...good, 'svix-signature': good['svix-signature']?.replace('v1,', 'v2,') ?? '' }],
    'another secret': [body, signatureOf(body, { secret: newWebhookSecret() })],
    'an altered body': [altered, good],
    'a re-serialised body': [JSON.stringify(JSON.parse(body), null, 1), good],
    'the id of another message': [body, { ...good, 'svix-id': 'msg_other' }],
    'the time of another message': [body, { ...good, 'svix-timestamp': String(Number(good['svix-timestamp']) + 1) }],
    'six minutes old': [body, aged(-6 * MINUTE_MS)],
    'six minutes ahead': [body, aged(6 * MINUTE_MS)],
    'no time': [body, { ...good, 'svix-timestamp': 'now' }],
    'a time with something behind': [body, { ...good, 'svix-timestamp': `${good['svix-timestamp']}x` }],
    'no id': [body, without('svix-id')],
    'no timestamp': [body, without('svix-timestamp')],
    'no signature': [body, without('svix-signature')],
    'no JSON, not signed': ['{', good],
    'nothing at all': ['', {}],
  };
  const bodies = new Set<string>();
  for (const [label, [sent, headers]] of Object.entries(refusals)) {
    const answer = await one.post(sent, headers);
    assert.equal(answer.status, 401, label);
    assert.equal(answer.headers['content-type'], 'application/problem+json', label);
    bodies.add(JSON.stringify({ ...answer.body, requestId: '' }));
  }
  assert.equal(bodies.size, 1, 'all refusals read the same');
  assert.deepEqual(await everything(), untouched);
  const logged = one.log.lines().join('\n');
  assert.ok(!logged.includes(good['svix-signature'] ?? '') && !logged.includes('whsec_'));
  // The same message as it was signed does take effect, so it was the signature that kept it out.
  assert.deepEqual((await one.post(body, good)).body, { outcome: 'applied' });
  assert.equal((await userRow(subject)).is_active, false);
});

test('four minutes early or late is in time, and one good signature among several is enough', async () => {
  for (const ms of [-4 * MINUTE_MS, 4 * MINUTE_MS]) {
    const answer = await one.deliver(userMessage('created', newSubject(), at(1)), {
      sentAt: new Date(Date.now() + ms),
    });
    assert.equal(answer.status, 200);
  }
  const body = JSON.stringify(userMessage('created', newSubject(), at(1)));
  const good = signatureOf(body);
  const rotated = { ...good, 'svix-signature': `v1,${Buffer.alloc(32).toString('base64')} ${good['svix-signature']}` };
  assert.equal((await one.post(body, rotated)).status, 200);
});

test('400, and nothing happened: signed, but not to be read', async () => {
  const untouched = await everything();
  const user = userMessage('created', newSubject(), at(1)).data;
  const membership = membershipMessage('created', 'orgmem_x', ['org_x', 'user_x'], at(1)).data;
  const bodies = [
    'no JSON',
    '',
    'null',
    JSON.stringify({ type: 'user.created' }),
    JSON.stringify({ type: 'user.created', data: { ...user, id: '' } }),
    JSON.stringify({ type: 'user.created', data: { ...user, id: 'user_\0' } }),
    JSON.stringify({ type: 'user.created', data: { ...user, id: 'u'.repeat(256) } }),
    JSON.stringify({ type: 'user.created', data: { ...user, banned: 'no' } }),
    JSON.stringify({ type: 'user.created', data: { ...user, banned: undefined } }),
    JSON.stringify({ type: 'user.created', data: { ...user, updated_at: 1e300 } }),
    JSON.stringify({ type: 'user.deleted', data: { id: 'user_x' }, timestamp: -1 }),
    JSON.stringify({ type: 'organizationMembership.created', data: { ...membership, organization: { id: 'org_x' } } }),
    JSON.stringify({ type: 'organizationMembership.deleted', data: { ...membership, public_user_data: null } }),
    JSON.stringify({ type: 'session.revoked', data: { id: 'sess_x' } }),
  ];
  for (const body of bodies) {
    const answer = await one.post(body, signatureOf(body));
    assert.equal(answer.status, 400, `${body}: ${JSON.stringify(answer.body)}`);
  }
  assert.deepEqual(await everything(), untouched);
});

test('413: a body is bound as everywhere', async () => {
  const body = JSON.stringify(userMessage('created', newSubject(), at(1), { filler: 'x'.repeat(70_000) }));
  assert.equal((await one.post(body, signatureOf(body))).status, 413);
});

test('types that are not used are taken and ignored; without a secret there is no such address', async () => {
  const untouched = await everything();
  for (const type of ['email.created', 'organizationInvitation.created', 'session.created', 'constructor']) {
    const { status, body } = await one.deliver({ type, data: {} });
    assert.deepEqual([status, body], [200, { outcome: 'ignored' }], type);
  }
  assert.deepEqual(await everything(), untouched);
  const plain = await startApplication(database, { secrets, serves: false });
  assert.ok(!plain.app.endpoints.some(({ path }) => path === '/webhooks/clerk'));
  await plain.close();
});

test('a message takes effect once, delivered again or to two instances at once', async () => {
  const subject = newSubject();
  await taken(one, userMessage('created', subject, at(1)));
  const { id: userId } = await userRow(subject);
  const message = userMessage('updated', subject, at(2), { banned: true });
  const delivery = { id: `msg_of_${subject}` };
  const deliveries = [one, two, one, two, one, two].map((application) => application.deliver(message, delivery));
  const outcomes = (await Promise.all(deliveries)).map(({ status, body }) => `${status} ${body['outcome']}`);
  assert.deepEqual(outcomes.sort(), ['200 applied', ...Array(5).fill('200 duplicate')]);
  assert.deepEqual(
    (await auditOf(userId)).map(({ action }) => action),
    ['user_banned'],
  );
  assert.deepEqual((await two.deliver(message, delivery)).body, { outcome: 'duplicate' });
});

for (const [label, message] of [
  ['banned', (subject: string) => userMessage('updated', subject, at(9), { banned: true })],
  ['deprovisioned', (subject: string) => userMessage('updated', subject, at(9), { deprovisioned: true })],
  ['deleted', (subject: string) => deletedMessage('user', subject, at(9))],
] as const) {
  test(`${label}: the person and their keys are refused from the answer on, on every instance that remembered them`, async () => {
    const subject = newSubject();
    await taken(one, userMessage('created', subject, at(1), { first: 'Ada', email: `${subject}@example.com` }));
    const session = await signIn(one, subject);
    await signIn(two, subject);
    const key = await newKey(session);
    // Both do remember: what changes without being announced goes unnoticed.
    await one.sql('UPDATE users SET is_active = false WHERE subject = $1', [subject]);
    for (const application of [one, two]) {
      await signIn(application, subject);
      await application.bearer(key);
    }
    await one.sql('UPDATE users SET is_active = true WHERE subject = $1', [subject]);

    await taken(one, message(subject));
    for (const application of [one, two]) {
      assert.ok(await isRefused(signIn(application, subject)), 'the session');
      assert.ok(await isRefused(application.bearer(key)), 'the key');
    }
    const { id, epoch } = await userRow(subject);
    assert.equal(epoch, '1');
    const [row] = await auditOf(id);
    assert.deepEqual(
      [row.action, row.actor_type, row.actor_id, row.resource_id, row.outcome, row.changes],
      [label === 'deleted' ? 'user_deleted' : 'user_banned', 'system', 'clerk', id, 'succeeded', null],
    );

    await taken(two, userMessage('updated', subject, at(10)));
    for (const application of [one, two]) {
      assert.equal(
        await isRefused(signIn(application, subject)),
        label === 'deleted',
        'a ban ends, a deletion does not',
      );
      assert.equal(await isRefused(application.bearer(key)), label === 'deleted');
    }
  });
}

test('what is personal is sealed, follows the newest message, and goes with the person', async () => {
  const subject = newSubject();
  const email = `${subject}@Example.com`;
  await taken(one, userMessage('created', subject, at(1), { first: 'Ada', email }));
  const mine = async () => (await identityTables(one, secrets)).filter((line) => line.includes(`"${subject}"`)).join();
  assert.match(await mine(), new RegExp(`"email":"${subject}@example.com".*"first":"Ada","last":"Example"`));
  assert.ok(!JSON.stringify(await userRow(subject)).includes(Buffer.from('Ada').toString('hex')));
  await taken(one, userMessage('updated', subject, at(3), { first: 'Augusta', email: null }));
  await taken(one, userMessage('updated', subject, at(2), { first: 'Too late', email }));
  assert.match(await mine(), /"email":null.*"first":"Augusta"/);
  await taken(one, deletedMessage('user', subject, at(0)));
  await taken(one, userMessage('updated', subject, at(99), { first: 'Back', email }));
  assert.match(await mine(), /"email":null,"index":null,"first":null,"last":null,"dataKey":null,"active":false/);
});

test('of two messages about one moment the later said counts, and where that is not told, the ban', async () => {
  for (const [saidFirst, saidThen] of [
    [1, 2],
    [2, 1],
  ] as const) {
    const subject = newSubject();
    const ban = { ...userMessage('updated', subject, at(5), { banned: true }), timestamp: at(5) + saidFirst };
    const unban = { ...userMessage('updated', subject, at(5), {}), timestamp: at(5) + saidThen };
    await taken(one, ban, unban, ban);
    assert.equal((await userRow(subject)).is_active, saidThen > saidFirst);
  }
  for (const order of [0, 1]) {
    const subject = newSubject();
    const both = [userMessage('updated', subject, at(5), { banned: true }), userMessage('updated', subject, at(5), {})];
    await taken(one, ...(order === 0 ? both : both.reverse()));
    assert.equal((await userRow(subject)).is_active, false);
  }
});

test('only a verified primary email is kept, and not one that another active person has, also after a ban', async () => {
  const [first, second] = [newSubject(), newSubject()];
  const email = `shared-${first}@example.com`;
  const emailOf = async (subject: string) =>
    JSON.parse(
      (await identityTables(one, secrets))
        .find((line) => line.startsWith('user') && line.includes(`"${subject}"`))
        ?.slice('user '.length) ?? '',
    ).email;
  const address = { id: 'idn_1', email_address: email, verification: { status: 'unverified' } };
  await taken(one, userMessage('created', first, at(1), { email, email_addresses: [address] }));
  assert.equal(await emailOf(first), null);
  await taken(one, userMessage('updated', first, at(2), { email, primary_email_address_id: 'idn_2' }));
  assert.equal(await emailOf(first), null);
  await taken(one, userMessage('updated', first, at(3), { email }));
  assert.equal(await emailOf(first), email);
  await taken(one, userMessage('created', second, at(4), { email, first: 'Second' }));
  assert.equal(await emailOf(second), null);

  await taken(one, userMessage('updated', first, at(5), { email, banned: true }));
  await taken(one, userMessage('updated', second, at(6), { email }));
  assert.equal(await emailOf(second), email, 'free while its owner is banned');
  await taken(one, userMessage('updated', first, at(7), { email }));
  assert.deepEqual([await emailOf(first), (await userRow(first)).is_active], [null, true]);
});

test('tiers, limits, rights on the platform and suspension are ours: no message touches them', async () => {
  const [subject, org] = [newSubject(), newOrganization()];
  await taken(one, userMessage('created', subject, at(1)), organizationMessage('created', org, at(1)));
  await one.sql(
    `UPDATE users SET tier = 'pro', platform_permissions = '{admin:read}', max_requests_per_minute = 7, suspended_at = now()
     WHERE subject = $1`,
    [subject],
  );
  await one.sql(
    `UPDATE organizations SET tier = 'pro', max_api_keys = 7, suspended_at = now() WHERE external_id = $1`,
    [org],
  );
  const ours = async () => [
    await one.sql(
      `SELECT tier, platform_permissions, max_requests_per_minute, max_requests_per_month, max_api_keys, suspended_at
       FROM users WHERE subject = $1`,
      [subject],
    ),
    await one.sql('SELECT tier, max_api_keys, suspended_at FROM organizations WHERE external_id = $1', [org]),
  ];
  const before = await ours();
  const metadata = { public_metadata: { tier: 'enterprise', admin: true }, private_metadata: { tier: 'enterprise' } };
  await taken(one, userMessage('updated', subject, at(2), { ...metadata, locked: true }));
  await taken(one, {
    type: 'organization.updated',
    data: { ...organizationMessage('updated', org, at(2)).data, ...metadata },
  });
  assert.equal((await userRow(subject)).is_active, true, 'nor does a lock end anything');
  await taken(one, deletedMessage('user', subject, at(3)), deletedMessage('organization', org, at(3)));
  assert.deepEqual(await ours(), before);
});

test('roles: by name, unknown ones only look, and the administrator who made the organization owns it', async () => {
  const org = newOrganization();
  const roles: Record<string, OrganizationRole> = {
    'org:admin': 'admin',
    admin: 'admin',
    'org:member': 'member',
    'org:owner': 'owner',
    'org:viewer': 'viewer',
    'org:billing_manager': 'viewer',
  };
  for (const [role, expected] of Object.entries(roles)) {
    const subject = newSubject();
    await taken(one, membershipMessage('created', `orgmem_${subject}`, [org, subject], at(1), { role }));
    assert.equal((await signIn(one, subject, { org, role: expected })).role, expected, role);
  }
  const maker = newSubject();
  const told = membershipMessage('created', `orgmem_${maker}`, [org, maker], at(1), { role: 'org:admin' });
  await taken(one, told);
  const { userId } = await signIn(two, maker, { org, role: 'admin' });
  await taken(one, organizationMessage('created', org, at(0), { created_by: maker }));
  assert.equal(
    (await signIn(two, maker, { org, role: 'admin' })).role,
    'owner',
    'at once, also where it was remembered',
  );
  const { orgId } = await signIn(one, maker, { org, role: 'admin' });
  assert.deepEqual(
    (await auditOf(orgId ?? '')).map(({ action, user_id, changes }) => [action, user_id, changes]),
    [['member_role_changed', userId, { from: 'admin', to: 'owner' }]],
  );
});

test('who leaves an organization is refused in it at once; their keys in it go on without rights on keys', async () => {
  const [subject, org] = [newSubject(), newOrganization()];
  const member = [org, subject] as const;
  await taken(one, membershipMessage('created', `orgmem_${subject}`, member, at(1), { role: 'org:admin' }));
  const inside = { org, role: 'admin', issuedAt: at(2) } as const;
  const session = await signIn(one, subject, inside);
  await signIn(two, subject, inside);
  const own = await signIn(two, subject);
  const key = await newKey(session, ['tools:read', 'keys:read', 'keys:write']);
  const personalKey = await newKey(own);
  assert.ok((await two.bearer(key)).permissions.has('keys:write'));

  await taken(
    one,
    membershipMessage('updated', `orgmem_${subject}`, member, at(3), { role: 'org:viewer', since: at(1) }),
  );
  for (const application of [one, two]) {
    assert.deepEqual([...(await application.bearer(key)).permissions], ['keys:read']);
    assert.equal((await signIn(application, subject, inside)).role, 'viewer');
  }
  await taken(one, membershipMessage('deleted', `orgmem_${subject}`, member, at(4)));
  for (const application of [one, two]) {
    assert.ok(await isRefused(signIn(application, subject, inside)));
    assert.deepEqual([...(await application.bearer(key)).permissions], ['tools:read']);
    assert.equal((await application.bearer(personalKey)).ownerId, own.userId);
    assert.equal((await signIn(application, subject)).ownerId, own.userId, 'their own account goes on');
  }
  assert.deepEqual(
    (await auditOf(session.ownerId)).map(({ action, user_id, changes }) => [action, user_id, changes]),
    [
      ['member_role_changed', session.userId, { from: 'admin', to: 'viewer' }],
      ['member_removed', session.userId, { role: 'viewer' }],
    ],
  );
  assert.equal(
    (await signIn(one, subject, { ...inside, issuedAt: at(5), role: 'member' })).role,
    'member',
    'a newer token holds',
  );
});

test('an organization that is deleted is over for all its members and keys at once', async () => {
  const [subject, org] = [newSubject(), newOrganization()];
  const slug = org.replace('_', '-');
  await taken(one, organizationMessage('created', org, at(1), { name: 'Acme', slug }));
  await taken(one, membershipMessage('created', `orgmem_${subject}`, [org, subject], at(1), { role: 'org:admin' }));
  const inside = { org, role: 'admin', issuedAt: at(2) } as const;
  const session = await signIn(one, subject, inside);
  await signIn(two, subject, inside);
  const key = await newKey(session);
  await taken(two, deletedMessage('organization', org, at(3)));
  for (const application of [one, two]) {
    assert.ok(await isRefused(signIn(application, subject, inside)));
    assert.ok(await isRefused(application.bearer(key)));
    await signIn(application, subject);
  }
  assert.deepEqual(
    (await auditOf(session.ownerId)).map(({ action }) => action),
    ['organization_deleted'],
  );
  // Its slug is free again, and one that another has is left out.
  const [next, third] = [newOrganization(), newOrganization()];
  for (const id of [next, third]) await taken(one, organizationMessage('created', id, at(4), { slug }));
  const rows = await one.sql('SELECT external_id, slug FROM organizations WHERE external_id = ANY ($1)', [
    [org, next, third],
  ]);
  assert.deepEqual(Object.fromEntries(rows.map((row) => [row.external_id, row.slug])), {
    [org]: null,
    [next]: slug,
    [third]: null,
  });
});

test('a session that is revoked is refused at once, another of the same person goes on', async () => {
  const subject = newSubject();
  for (const [kind, audited] of [
    ['revoked', 1],
    ['ended', 1],
    ['removed', 1],
  ] as const) {
    const [gone, stays] = [{ sessionId: `sess_${subject}_${kind}` }, { sessionId: `sess_${subject}_stays` }];
    for (const application of [one, two]) {
      await signIn(application, subject, gone);
      await signIn(application, subject, stays);
    }
    await taken(one, sessionMessage(kind, gone.sessionId, subject, at(1)));
    for (const application of [one, two]) {
      assert.ok(await isRefused(signIn(application, subject, gone)), kind);
      await signIn(application, subject, stays);
    }
    const rows = await auditOf((await userRow(subject)).id);
    assert.equal(rows.length, audited, 'signing out oneself is nothing for the audit trail');
  }
  const stranger = newSubject();
  await taken(one, sessionMessage('revoked', `sess_${stranger}`, stranger, at(1)));
  assert.ok(await isRefused(signIn(two, stranger, { sessionId: `sess_${stranger}` })), 'also where it was never seen');
});

test('503 while the database is away or holds the row, nothing half done, and the repeat takes effect', async (t) => {
  const subject = newSubject();
  await taken(one, userMessage('created', subject, at(1)));
  const url = new URL(database.apiUrl);
  const proxy = await startTcpProxy({ host: url.hostname, port: Number(url.port) });
  const third = await startClerkApplication(database, {
    secrets,
    serviceUrl: throughProxy(database.apiUrl, proxy),
    settings: { DATABASE_CONNECTION_TIMEOUT: '1000' },
  });
  const holder = new pg.Client({ connectionString: database.superuserUrl });
  await holder.connect();
  t.after(async () => {
    await holder.end();
    await third.close();
    await proxy.close();
  });
  const untouched = await everything();
  const message = userMessage('updated', subject, at(2), { banned: true });
  const refused = (answer: Awaited<ReturnType<typeof third.deliver>>) => {
    assert.equal(answer.status, 503);
    assert.equal(answer.headers['retry-after'], '2');
    assert.equal(answer.body['code'], 'unavailable');
  };
  const delivery = { id: `msg_of_${subject}` };
  proxy.set('reset');
  refused(await third.deliver(message, delivery));
  proxy.set('pass');
  assert.deepEqual(await everything(), untouched);

  // In the middle: the message is noted, then its row cannot be had.
  await holder.query('BEGIN');
  await holder.query('SELECT FROM users WHERE subject = $1 FOR UPDATE', [subject]);
  refused(await third.deliver(message, delivery));
  await holder.query('ROLLBACK');
  assert.deepEqual(await everything(), untouched);

  await signIn(two, subject);
  assert.deepEqual((await third.deliver(message, delivery)).body, { outcome: 'applied' });
  assert.ok(await isRefused(signIn(two, subject)));
});

test('old messages and what nothing can contradict any more are forgotten in batches; who was deleted is not', async () => {
  const [subject, org] = [newSubject(), newOrganization()];
  const member = [org, subject] as const;
  const now = Date.now();
  const job = one.app.jobs.find(({ name }) => name === 'tenants.forget_messages');
  assert.ok(job !== undefined);
  const daysLater = (days: number) =>
    runJob({ database: one.app.database, wallClockMs: () => now + days * 24 * 60 * MINUTE_MS }, job);
  await daysLater(1_000);
  await taken(
    one,
    sessionMessage('ended', `sess_${subject}`, subject, now),
    membershipMessage('deleted', `orgmem_${subject}`, member, now),
    deletedMessage('user', subject, now),
    deletedMessage('organization', org, now),
  );
  const kinds = async () =>
    (
      await one.sql('SELECT kind FROM identity_deletions WHERE external_id LIKE $1 OR external_id = $2 ORDER BY kind', [
        `%${subject}`,
        org,
      ])
    ).map((row) => row.kind);
  assert.deepEqual(await daysLater(29), {});
  assert.deepEqual(await daysLater(31), { messages: 4 });
  assert.deepEqual(await daysLater(89), {});
  assert.deepEqual(await kinds(), ['member', 'membership', 'organization', 'session', 'user']);
  assert.deepEqual(await daysLater(91), { deletions: 3 });
  assert.deepEqual(await daysLater(1_000), {});
  assert.deepEqual(await kinds(), ['organization', 'user']);

  await one.sql(
    `INSERT INTO webhook_messages (provider, message_id, event_type, received_at)
     SELECT 'clerk', 'msg_old_' || n, 'user.created', now() - interval '31 days' FROM generate_series(1, 10001) AS n`,
  );
  assert.deepEqual(await daysLater(0), { messages: 10_000 });
  assert.deepEqual(await daysLater(0), { messages: 1 });
});
