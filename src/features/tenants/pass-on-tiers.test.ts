import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { after, before, beforeEach, test } from 'node:test';
import { startApplication, type TestApplication } from '../../../test/support/application.ts';
import { type TestCluster, type TestDatabase, testCluster } from '../../../test/support/postgres.ts';
import { runJob } from '../../main/jobs.ts';
import { openClerkMetadata } from '../../platform/clerk-metadata.ts';
import { installationOperator, LOCAL_ISSUER } from './index.ts';

// The real library of Clerk against a server that plays its Backend API. The job's clock belongs to the test.

const ISSUER = 'https://clerk.example.com';
const SECRET_KEY = 'sk_test_never_to_be_logged';
const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;

interface Received {
  readonly request: string;
  readonly authorization: string | undefined;
  readonly body: unknown;
}
type Reply = (response: ServerResponse) => void;

const accept: Reply = (response) => {
  response.writeHead(200, { 'content-type': 'application/json' }).end('{"object":"user","id":"x"}');
};
const fail: Reply = (response) => {
  response.writeHead(500, { 'content-type': 'application/json' }).end('{"errors":[{"code":"broken"}]}');
};
const cutOff: Reply = (response) => void response.destroy();
const neverAnswer: Reply = () => undefined;

let cluster: TestCluster;
let database: TestDatabase;
let iora: TestApplication;
let nowMs: number;
let received: Received[];
let reply: Reply;

async function receive(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const body: unknown = JSON.parse(await text(request));
  received.push({ request: `${request.method} ${request.url}`, authorization: request.headers.authorization, body });
  reply(response);
}
const clerk = createServer((request, response) => void receive(request, response));
let clerkUrl: string;

before(async () => {
  clerk.listen(0, '127.0.0.1');
  await once(clerk, 'listening');
  clerkUrl = `http://127.0.0.1:${(clerk.address() as AddressInfo).port}`;
  cluster = await testCluster();
  database = await cluster.database();
  iora = await startApplication(database, {
    // Jobs run where the test runs them.
    serves: false,
    settings: {
      CLERK_PUBLISHABLE_KEY: `pk_test_${Buffer.from('clerk.example.com$').toString('base64')}`,
      CLERK_SECRET_KEY: SECRET_KEY,
      CLERK_API_URL: clerkUrl,
      PUBLIC_URL: 'https://iora.example.com',
    },
  });
});
after(async () => {
  await iora.close();
  await cluster.stop();
  clerk.closeAllConnections();
  clerk.close();
});
beforeEach(async () => {
  received = [];
  reply = accept;
  nowMs = Date.now() + MINUTE_MS;
  await iora.sql('DELETE FROM outbox_events');
});

let unused = 0;
/** Somebody whom Clerk vouches for, with an organization. */
async function fromClerk(issuer = ISSUER) {
  unused += 1;
  const subject = `user_clerk${unused}`;
  const orgSubject = `org_clerk${unused}`;
  const person = await iora.app.people.resolve({
    issuer,
    subject,
    email: null,
    organization: { externalId: orgSubject, slug: null, name: null, role: 'admin' },
    sessionId: null,
    issuedAt: new Date(),
  });
  assert.ok(person?.orgId);
  return { subject, orgSubject, userId: person.userId, orgId: person.orgId };
}

const setTier = (input: object) => iora.output('tenants.set_tier', installationOperator, input);
async function round(): Promise<Readonly<Record<string, number>> | null> {
  const job = iora.app.jobs.find(({ name }) => name === 'tenants.pass_on_tiers') ?? assert.fail('there is no such job');
  return runJob({ database: iora.app.database, wallClockMs: () => nowMs }, job);
}
const outbox = () => iora.sql('SELECT attempts, delivered_at IS NOT NULL AS delivered, payload FROM outbox_events');

test('Clerk is told the tier of its people and organizations, that alone and once', async () => {
  const { userId, subject, orgId, orgSubject } = await fromClerk();
  await setTier({ tier: 'pro', userId });
  await setTier({ tier: 'enterprise', orgId });
  assert.equal(received.length, 0, 'nobody waits for Clerk');
  assert.deepEqual(await round(), { claimed: 2 });
  const authorization = `Bearer ${SECRET_KEY}`;
  assert.deepEqual(
    received.toSorted((one, other) => one.request.localeCompare(other.request)),
    [
      {
        request: `PATCH /v1/organizations/${orgSubject}/metadata`,
        authorization,
        body: { public_metadata: { tier: 'enterprise' } },
      },
      { request: `PATCH /v1/users/${subject}/metadata`, authorization, body: { public_metadata: { tier: 'pro' } } },
    ],
  );
  nowMs += 24 * HOUR_MS;
  assert.deepEqual(await round(), {});
  assert.equal(received.length, 2);
});

test('owners of other issuers are nothing to Clerk', async () => {
  const { userId } = await fromClerk('https://elsewhere.example.com');
  await setTier({ tier: 'pro', userId });
  const { userId: local } = await fromClerk(LOCAL_ISSUER);
  await setTier({ tier: 'pro', userId: local });
  assert.deepEqual(await outbox(), []);
});

test('what fails comes again later and later until it is delivered, and not once more', async () => {
  const { userId } = await fromClerk();
  await setTier({ tier: 'pro', userId });
  const tries: number[] = [];
  const startedAtMs = nowMs;
  for (reply of [fail, cutOff, fail, accept]) {
    const before = received.length;
    for (let minute = 0; received.length === before && minute < 60; minute += 1) {
      await round();
      nowMs += MINUTE_MS / 2;
    }
    tries.push((nowMs - startedAtMs) / MINUTE_MS);
  }
  // Pauses of 0.5, 1 and 2 minutes, seen every half minute.
  assert.deepEqual(tries, [0.5, 1, 2, 4]);
  assert.equal(received.length, 4);
  assert.deepEqual(
    (await outbox()).map(({ attempts, delivered }) => [attempts, delivered]),
    [[4, true]],
  );
  nowMs += 24 * HOUR_MS;
  await round();
  assert.equal(received.length, 4);
  const warned = iora.log.named('a tier could not be passed on to Clerk and comes again');
  assert.equal(warned.length, 3);
  assert.ok(!iora.log.lines().some((line) => line.includes(SECRET_KEY)));
});

test('an event that was sent but not marked, as after a crash, is sent again with the same value', async () => {
  const { userId } = await fromClerk();
  await setTier({ tier: 'pro', userId });
  await round();
  await iora.sql('UPDATE outbox_events SET delivered_at = NULL');
  await round();
  assert.equal(received.length, 1, 'not before its pause is over');
  nowMs += MINUTE_MS;
  await round();
  assert.equal(received.length, 2);
  assert.deepEqual(received[1], received[0]);
});

test('a newer tier takes the place of one that waits, and comes after one that is under way', async () => {
  const { userId } = await fromClerk();
  await setTier({ tier: 'pro', userId });
  await setTier({ tier: 'enterprise', userId });
  assert.equal((await outbox()).length, 1);
  reply = fail;
  await round();
  reply = accept;
  await setTier({ tier: 'free', userId });
  await round();
  assert.equal(received.length, 1, 'the older one has its time');
  nowMs += MINUTE_MS;
  await round();
  const tiers = received.map(({ body }) => (body as { public_metadata: { tier: string } }).public_metadata.tier);
  assert.deepEqual(tiers, ['enterprise', 'free']);
});

test('after a day of failures it is given up, at error, and only setting the tier anew tries again', async () => {
  const { userId } = await fromClerk();
  await setTier({ tier: 'pro', userId });
  reply = fail;
  for (let hour = 0; hour < 40; hour += 1) {
    await round();
    nowMs += HOUR_MS;
  }
  assert.equal(received.length, 30);
  const given = iora.log.named('a tier could not be passed on to Clerk and is given up; set it again to try anew');
  assert.equal(given.length, 1);
  assert.ok(given[0]?.startsWith('error'));
  assert.deepEqual(
    (await outbox()).map(({ attempts, delivered }) => [attempts, delivered]),
    [[30, false]],
  );
  reply = accept;
  await setTier({ tier: 'pro', userId });
  await round();
  assert.equal(received.length, 31);
});

test('a round sends a bounded batch, and two at once share none', async () => {
  const { userId } = await fromClerk();
  await iora.sql(
    `INSERT INTO outbox_events (topic, owner_id, payload)
     SELECT 'clerk.metadata', $1, jsonb_build_object('kind', 'user', 'externalId', 'user_' || n, 'tier', 'pro') FROM generate_series(1, 50) n`,
    [userId],
  );
  await iora.sql(`INSERT INTO outbox_events (topic, owner_id, payload) VALUES ('other', $1, '{}')`, [userId]);
  await Promise.all([round(), round()]);
  await round();
  await round();
  assert.equal(received.length, 50);
  assert.equal(new Set(received.map(({ request }) => request)).size, 50);
  assert.ok((await outbox()).every(({ delivered, payload }) => delivered === (payload.kind === 'user')));
});

test('an answer that does not come is not waited for without end', async () => {
  reply = neverAnswer;
  const metadata = openClerkMetadata({ secretKey: SECRET_KEY, apiUrl: clerkUrl, timeoutMs: 50 });
  await assert.rejects(
    metadata.setTier({ kind: 'user', externalId: 'user_x', tier: 'pro' }),
    /did not answer in 50 ms/,
  );
  assert.equal(received.length, 1);
});
