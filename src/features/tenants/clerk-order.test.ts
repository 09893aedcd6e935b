// A history of what happened at Clerk, told in order once, and then in every other way the network may tell it: the tables
// end the same.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { testSecrets } from '../../../test/support/application.ts';
import {
  type ClerkApplication,
  type ClerkMessage,
  deletedMessage,
  ISSUER,
  identityTables,
  membershipMessage,
  organizationMessage,
  sessionMessage,
  startClerkApplication,
  userMessage,
} from '../../../test/support/clerk.ts';
import { type TestCluster, testCluster } from '../../../test/support/postgres.ts';
import type { OrganizationRole } from '../../kernel/context.ts';
import { DatabaseUnavailableError } from '../../platform/postgres.ts';
import type { PersonClaims } from './people.ts';

const START = Date.UTC(2026, 0, 1);
/** The nth moment of the history. */
const at = (n: number) => START + n * 60_000;

const ada = 'user_ada';
const bob = 'user_bob';
const eve = 'user_eve';
const zoe = 'user_zoe';
const [acme, gone] = ['org_acme', 'org_gone'];
const byAda = { id: acme, name: 'Acme', slug: 'acme', updated_at: at(3), created_by: ada };
const acmeFirst = { id: acme, name: 'Acme', slug: 'acme', updated_at: at(3) };

/** What happened, in order. */
const history: readonly ClerkMessage[] = [
  userMessage('created', ada, at(1), { first: 'Ada', email: 'ada@example.com' }),
  userMessage('created', bob, at(2), { first: 'Bob', email: 'bob@example.com' }),
  organizationMessage('created', acme, at(3), { name: 'Acme', slug: 'acme' }),
  membershipMessage('created', 'orgmem_ada', [acme, ada], at(3), { role: 'org:admin', organization: acmeFirst }),
  userMessage('updated', bob, at(4), { first: 'Robert', email: 'bob@example.com' }),
  membershipMessage('created', 'orgmem_bob', [acme, bob], at(5), { organization: acmeFirst }),
  userMessage('updated', bob, at(6), { first: 'Robert', email: 'robert@example.com' }),
  membershipMessage('updated', 'orgmem_bob', [acme, bob], at(7), {
    role: 'org:admin',
    since: at(5),
    organization: byAda,
  }),
  organizationMessage('updated', acme, at(8), { name: 'Acme Inc', slug: 'acme-inc', created_by: ada }),
  userMessage('updated', bob, at(9), { first: 'Robert', email: 'robert@example.com', banned: true }),
  userMessage('updated', bob, at(10), { first: 'Robert', email: 'robert@example.com' }),
  membershipMessage('deleted', 'orgmem_bob', [acme, bob], at(11), { role: 'org:admin', since: at(5) }),
  membershipMessage('created', 'orgmem_bob2', [acme, bob], at(12), { role: 'org:auditor', organization: byAda }),
  sessionMessage('revoked', 'sess_eve', eve, at(13)),
  userMessage('created', eve, at(14), { first: 'Eve' }),
  sessionMessage('ended', 'sess_eve', eve, at(15)),
  organizationMessage('created', gone, at(16), { name: 'Gone', slug: 'gone', created_by: eve }),
  membershipMessage('created', 'orgmem_eve', [gone, eve], at(16), { role: 'org:admin' }),
  membershipMessage('created', 'orgmem_zoe', [gone, zoe], at(17)),
  organizationMessage('updated', gone, at(18), { name: 'Nearly gone', slug: 'nearly', created_by: eve }),
  deletedMessage('organization', gone, at(19)),
  userMessage('created', zoe, at(16), { first: 'Zoe', email: 'zoe@example.com' }),
  membershipMessage('created', 'orgmem_zoe2', [acme, zoe], at(20), { organization: byAda }),
  userMessage('updated', zoe, at(21), { first: 'Zoe', email: 'zoe@example.com', banned: true }),
  deletedMessage('user', zoe, at(22)),
  membershipMessage('created', 'orgmem_eve2', [acme, eve], at(23), { organization: byAda }),
  membershipMessage('deleted', 'orgmem_eve2', [acme, eve], at(24), { since: at(23) }),
  userMessage('updated', eve, at(25), { first: 'Eve', banned: true }),
];

/** Tokens that were issued before the messages about the same, and say nothing that the messages do not say as well or better. */
const tokens: readonly PersonClaims[] = [
  token(ada, 0, null),
  token(bob, 0, null),
  token(zoe, 0, null),
  token(eve, 0, null),
  token(ada, 3, 'admin'),
  token(bob, 5, 'member'),
  token(eve, 23, 'member'),
  token(zoe, 20, 'member'),
];

function token(subject: string, n: number, role: OrganizationRole | null): PersonClaims {
  return {
    issuer: ISSUER,
    subject,
    email: null,
    organization: role === null ? null : { externalId: acme, slug: 'acme', name: 'acme', role },
    sessionId: 'sess_other',
    issuedAt: new Date(at(n)),
  };
}

const secrets = testSecrets();
let cluster: TestCluster;
let one: ClerkApplication;
let two: ClerkApplication;
let inOrder: string[];

before(async () => {
  cluster = await testCluster();
  const database = await cluster.database();
  one = await startClerkApplication(database, { secrets });
  two = await startClerkApplication(database, { secrets });
  for (const [index, message] of history.entries()) await delivered(one, message, `msg_${index}`);
  inOrder = await identityTables(one, secrets);
});
after(async () => {
  await Promise.all([one.close(), two.close()]);
  await cluster.stop();
});

async function delivered(application: ClerkApplication, message: ClerkMessage, id: string): Promise<void> {
  const answer = await application.deliver(message, { id });
  assert.equal(answer.status, 200, `${message.type}: ${JSON.stringify(answer.body)}`);
}

async function forgetEverything(): Promise<void> {
  await one.sql('TRUNCATE users, organizations, organization_members, identity_deletions, webhook_messages CASCADE');
}

test('told in order, everybody ends as the last message says', () => {
  const withoutTimes = inOrder.map((line) => line.replaceAll(/"2026-01-01T00:(\d\d):00.000Z"/g, '$1'));
  const find = (kind: string, ...words: string[]) =>
    withoutTimes.filter((line) => line.startsWith(kind) && words.every((word) => line.includes(word)));
  const only = (kind: string, ...words: string[]) => {
    const lines = find(kind, ...words);
    assert.equal(lines.length, 1, `${kind} ${words}: ${lines.join('\n')}`);
    return JSON.parse(lines[0]?.slice(kind.length + 1).replaceAll(/:0(\d)/g, ':$1') ?? '');
  };
  const person = (subject: string) => {
    const { email, first, active, newest, deleted } = only('user', subject);
    return { email, first, active, newest, deleted };
  };
  assert.deepEqual(person(ada), { email: 'ada@example.com', first: 'Ada', active: true, newest: 1, deleted: null });
  assert.deepEqual(person(bob), {
    email: 'robert@example.com',
    first: 'Robert',
    active: true,
    newest: 10,
    deleted: null,
  });
  assert.deepEqual(person(eve), { email: null, first: 'Eve', active: false, newest: 25, deleted: null });
  assert.deepEqual(person(zoe), { email: null, first: null, active: false, newest: null, deleted: 22 });
  const { name, slug, created_by_subject: createdBy } = only('organization', acme);
  assert.deepEqual([name, slug, createdBy], ['Acme Inc', 'acme-inc', ada]);
  assert.equal(only('organization', gone).is_active, false);
  const members = find('member').map((line) => JSON.parse(line.slice('member '.length).replaceAll(/:0(\d)/g, ':$1')));
  assert.deepEqual(
    members.map((member) => [member.subject, member.role, member.external_id, member.joined_at]),
    [
      [ada, 'owner', 'orgmem_ada', 3],
      [bob, 'viewer', 'orgmem_bob2', 12],
    ],
  );
  assert.deepEqual(
    find('deletion')
      .map((line) => JSON.parse(line.slice('deletion '.length).replaceAll(/:0(\d)/g, ':$1')))
      .map((row) => `${row.kind} ${row.external_id} ${row.deleted_at}`)
      .sort(),
    [
      `member ${acme} ${bob} 11`,
      `member ${acme} ${eve} 24`,
      'membership orgmem_bob 11',
      'membership orgmem_eve2 24',
      `organization ${gone} 19`,
      'session sess_eve 15',
      `user ${zoe} 22`,
    ],
  );
});

/** What arrives: a message under an id, or a token. */
type Arrival = { readonly message: number; readonly id: string } | { readonly token: number };

/** Everything at least once, some of it again under the same id or a new one, and tokens in between; in any order. */
const tellings: fc.Arbitrary<Arrival[]> = fc
  .tuple(
    fc.array(fc.record({ message: fc.nat(history.length - 1), anew: fc.boolean() }), { maxLength: 10 }),
    fc.array(fc.nat(tokens.length - 1), { maxLength: 6 }),
  )
  .chain(([repeats, seen]) => {
    const arrivals: Arrival[] = [
      ...history.map((_, message) => ({ message, id: `msg_${message}` })),
      ...repeats.map(({ message, anew }, n) => ({ message, id: anew ? `msg_${message}_${n}` : `msg_${message}` })),
      ...seen.map((index) => ({ token: index })),
    ];
    return fc.shuffledSubarray(arrivals, { minLength: arrivals.length, maxLength: arrivals.length });
  });

const RUNS = 100;
/** Several times what the runs take; a run cut short fails. */
const TIME_LIMIT_MS = 300_000;

test(`told ${RUNS} other ways, with repeats and tokens in between, the tables end the same`, async () => {
  let repeats = 0;
  await fc.assert(
    fc.asyncProperty(tellings, async (arrivals) => {
      await forgetEverything();
      for (const arrival of arrivals) {
        if ('token' in arrival) await one.app.people.resolve(tokens[arrival.token] as PersonClaims);
        else await delivered(one, history[arrival.message] as ClerkMessage, arrival.id);
      }
      repeats += arrivals.length - history.length;
      assert.deepEqual(await identityTables(one, secrets), inOrder);
    }),
    { numRuns: RUNS, interruptAfterTimeLimit: TIME_LIMIT_MS, markInterruptAsFailure: true },
  );
  assert.ok(repeats > RUNS, 'there were repeats and tokens');
});

/** Rounds of the test below, each with all messages at once. */
const ROUNDS = 10;

test('told all at once to two instances, twice each, the tables end the same', async () => {
  for (let round = 0; round < ROUNDS; round += 1) {
    await forgetEverything();
    const [order] = fc.sample(
      fc.shuffledSubarray([...history.keys(), ...history.keys()], { minLength: 2 * history.length }),
      1,
    );
    const told = (order ?? []).map((message, n) =>
      n % 2 === 0 ? deliverUntilTaken(one, message) : deliverUntilTaken(two, message),
    );
    await Promise.all([...told, ...tokens.map(signInUntilTaken)]);
    assert.deepEqual(await identityTables(one, secrets), inOrder);
  }
  const [{ deadlocks }] = await one.sql('SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()');
  assert.equal(deadlocks, '0', 'rows are locked in one order everywhere');
});

/** Tries after a refusal that asks to come back, as Clerk does; without its pauses, since nothing is down. */
const TRIES_MAX = 5;

async function deliverUntilTaken(application: ClerkApplication, message: number): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    const answer = await application.deliver(history[message] as ClerkMessage, { id: `msg_${message}` });
    if (answer.status === 200) return;
    assert.ok(answer.status === 503 && attempt < TRIES_MAX, JSON.stringify(answer.body));
  }
}

async function signInUntilTaken(claims: PersonClaims): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return void (await two.app.people.resolve(claims));
    } catch (error) {
      if (!(error instanceof DatabaseUnavailableError) || attempt >= TRIES_MAX) throw error;
    }
  }
}
