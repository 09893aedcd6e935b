import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { testSecrets, until } from '../../../test/support/application.ts';
import {
  type HttpApplication,
  type SignedRequest,
  sendRaw,
  signedBy,
  startHttpApplication,
  type TestSigner,
} from '../../../test/support/http-application.ts';
import { type TestCluster, type TestDatabase, testCluster } from '../../../test/support/postgres.ts';
import { startTcpProxy, throughProxy } from '../../../test/support/tcp-proxy.ts';

const PATH = '/tools/get_price';
const BODY = '{"symbol":"BTC"}';
const signerOf = (keyId: string): TestSigner => ({ keyId, secret: randomBytes(32) });
/** Two secrets of one service, one of another, and one that is configured nowhere any more. */
const [old, current, other, retired] = [signerOf('gw-1'), signerOf('gw-2'), signerOf('other-1'), signerOf('gw-0')];
const spelled = (service: string, { keyId, secret }: TestSigner) => `${service}:${keyId}:${secret.toString('base64')}`;

let cluster: TestCluster;
let database: TestDatabase;
let first: HttpApplication;
let second: HttpApplication;
before(async () => {
  cluster = await testCluster();
  database = await cluster.database();
  const settings = {
    SERVICE_SECRETS: [spelled('gateway', old), spelled('gateway', current), spelled('other', other)].join(','),
  };
  const secrets = testSecrets();
  first = await startHttpApplication(database, { settings, secrets });
  second = await startHttpApplication(database, { settings, secrets });
});
after(async () => {
  await first.close();
  await second.close();
  await cluster.stop();
});

interface Answer {
  readonly status: number;
  readonly problem: Record<string, unknown>;
  readonly headers: Headers;
  readonly body: Record<string, unknown>;
}

async function send(
  headers: Record<string, string>,
  change: { path?: string; method?: string; body?: string | undefined; to?: HttpApplication } = {},
): Promise<Answer> {
  const { path = PATH, method = 'POST', to = first } = change;
  const body = 'body' in change ? change.body : BODY;
  const answer = await fetch(`${to.url}${path}`, {
    method,
    headers: { 'content-type': 'application/json', ...headers },
    ...(body === undefined ? {} : { body }),
  });
  const value = (await answer.json()) as Record<string, unknown>;
  const { requestId: _one, ...problem } = value;
  return { status: answer.status, problem, headers: answer.headers, body: value };
}

const signed = (change: Partial<SignedRequest> = {}, signer = current) =>
  signedBy(signer, { target: PATH, body: BODY, ...change });

/** The one refusal of whatever is wrong with a signed call. */
async function refusal(): Promise<Record<string, unknown>> {
  const { status, problem } = await send({ ...signed(), 'x-iora-signature': '0'.repeat(64) });
  assert.equal(status, 401);
  return problem;
}

async function assertRefused(sent: Promise<Answer>, what: string): Promise<void> {
  const { status, problem } = await sent;
  assert.equal(status, 401, what);
  assert.deepEqual(problem, await refusal(), what);
}

async function tenant(limits?: { minute: number; month: number }): Promise<string> {
  const slug = `t-${randomUUID()}`;
  const { ownerId } = await first.iora.session(`founder@${slug}.example.com`, slug);
  if (limits !== undefined) {
    await first.iora.sql(
      'UPDATE organizations SET max_requests_per_minute = $2, max_requests_per_month = $3 WHERE id = $1',
      [ownerId, limits.minute, limits.month],
    );
  }
  return ownerId;
}

test('a signed call is answered, under either secret of its service and in hexadecimal digits of either case', async () => {
  for (const signer of [old, current]) {
    const { status, body } = await send(signed({}, signer));
    assert.deepEqual([status, body['symbol']], [200, 'BTC'], signer.keyId);
  }
  const headers = signed();
  const signature = (headers['x-iora-signature'] ?? '').toUpperCase();
  assert.equal((await send({ ...headers, 'x-iora-signature': signature })).status, 200);
  const path = `${PATH}?`;
  assert.equal((await send(signed({ target: path }), { path })).status, 200, 'a query is signed as it is sent');
});

test('a call that is sent again is refused, as it was or with its signature spelled otherwise', async () => {
  const headers = signed();
  assert.equal((await send(headers)).status, 200);
  await assertRefused(send(headers), 'again');
  await assertRefused(send(headers, { to: second }), 'again, to another instance');
  const upper = { ...headers, 'x-iora-signature': (headers['x-iora-signature'] ?? '').toUpperCase() };
  await assertRefused(send(upper), 'again, in upper case');
});

test('of many copies of one call, sent to two instances at once, exactly one is answered', async () => {
  for (let round = 0; round < 5; round += 1) {
    const headers = signed();
    const answers = await Promise.all(
      Array.from({ length: 16 }, (_, index) => send(headers, { to: index % 2 === 0 ? first : second })),
    );
    const statuses = answers.map(({ status }) => status).sort();
    assert.deepEqual(statuses, [200, ...Array.from({ length: 15 }, () => 401)]);
  }
});

test('whatever the signature does not cover is refused, all with one answer', async () => {
  const ownerId = await tenant();
  const swapped = { ...signed(), 'x-iora-key-id': old.keyId };
  const cases: [string, Promise<Answer>][] = [
    ['another path', send(signed(), { path: '/tools/list_symbols', body: BODY })],
    ['another query', send(signed(), { path: `${PATH}?symbol=ETH` })],
    [
      'another method',
      send(signed({ target: '/user/api-keys', body: '' }), { method: 'GET', path: '/user/api-keys', body: undefined }),
    ],
    ['another body', send(signed(), { body: '{"symbol":"ETH"}' })],
    ['the same body, written again', send(signed(), { body: JSON.stringify(JSON.parse(BODY), null, 1) })],
    ['no body', send(signed(), { body: '' })],
    ['a tenant that was not signed', send({ ...signed(), 'x-iora-tenant': ownerId })],
    ['another tenant', send({ ...signed({ tenant: ownerId }), 'x-iora-tenant': await tenant() })],
    ['a tenant that was signed and taken away', send(without(signed({ tenant: ownerId }), 'x-iora-tenant'))],
    ['an empty tenant', send({ ...signed(), 'x-iora-tenant': '' })],
    ['another timestamp', send({ ...signed(), 'x-iora-timestamp': String(Math.floor(Date.now() / 1_000) - 7) })],
    ['another nonce', send({ ...signed(), 'x-iora-nonce': randomBytes(18).toString('base64url') })],
    ['a secret that was retired', send(signed({}, retired))],
    ["another key's id", send(swapped)],
    ["another service's secret", send(signed({}, { keyId: current.keyId, secret: other.secret }))],
    ['a nonce that is too short', send({ ...signed(), 'x-iora-nonce': 'a'.repeat(15) })],
    ['a nonce that is too long', send({ ...signed(), 'x-iora-nonce': 'a'.repeat(65) })],
    ['a nonce with a blank', send({ ...signed(), 'x-iora-nonce': 'a b'.repeat(8) })],
    ['a timestamp with a sign', send({ ...signed(), 'x-iora-timestamp': '+1767225600' })],
    ['a signature cut short', send({ ...signed(), 'x-iora-signature': 'ab' })],
    ['an empty signature', send({ ...signed(), 'x-iora-signature': '' })],
  ];
  for (const name of ['x-iora-key-id', 'x-iora-timestamp', 'x-iora-nonce']) {
    cases.push([`without ${name}`, send(without(signed(), name))]);
  }
  for (const [what, sent] of cases) await assertRefused(sent, what);
  assert.equal((await send(without(signed(), 'x-iora-signature'))).status, 401, 'without x-iora-signature');
});

function without(headers: Record<string, string>, name: string): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).filter(([key]) => key !== name));
}

test('a header that is sent twice is refused, whichever and also with the same value', async () => {
  const head = (headers: Record<string, string>) => Object.entries(headers).map(([name, value]) => `${name}: ${value}`);
  const line = [`POST ${PATH} HTTP/1.1`, 'content-type: application/json'];
  const ownerId = await tenant();
  assert.equal((await sendRaw(first.url, [...line, ...head(signed({ tenant: ownerId }))], BODY)).status, 200);
  for (const name of Object.keys(signed({ tenant: ownerId }))) {
    const headers = signed({ tenant: ownerId });
    const twice = [...line, ...head(headers), `${name}: ${headers[name]}`];
    const { status, body } = await sendRaw(first.url, twice, BODY);
    const { requestId: _one, ...problem } = JSON.parse(body);
    assert.deepEqual([status, problem], [401, await refusal()], name);
  }
});

test('a clock that is off is told so, either way; one within the bound is not', async () => {
  for (const offSeconds of [-299, 299]) {
    assert.equal((await send(signed({ atMs: Date.now() + offSeconds * 1_000 }))).status, 200, `${offSeconds} s`);
  }
  for (const [offSeconds, words] of [
    [-302, /^x-iora-timestamp is 30[23] s off, behind this server's clock; 300 s are allowed\./],
    [303, /^x-iora-timestamp is 30[23] s off, ahead of this server's clock; 300 s are allowed\./],
  ] as const) {
    const { status, problem } = await send(signed({ atMs: Date.now() + offSeconds * 1_000 }));
    assert.equal(status, 401);
    assert.match(String(problem['detail']), words);
    assert.equal(problem['code'], 'unauthenticated');
  }
  const { problem } = await send({ ...signed(), 'x-iora-timestamp': String(Date.now()) });
  assert.match(String(problem['detail']), /Send Unix seconds/, 'who sends milliseconds');
  await assertRefused(send(signed({ atMs: 0 }, retired)), 'only who is known is told');
});

test('the signature is over the bytes as they came, before anything is said about their type', async () => {
  const { status, problem } = await send({ ...signed(), 'content-type': 'text/plain' });
  assert.deepEqual([status, problem['code']], [415, 'unsupported_media_type']);
  await assertRefused(send({ ...signed(), 'content-type': 'text/plain' }, { body: `${BODY} ` }), 'another body');
  const spaced = '{ "symbol" : "BTC" }';
  assert.equal((await send(signed({ body: spaced }), { body: spaced })).status, 200);
  const broken = '{"symbol":';
  assert.equal((await send(signed({ body: broken }), { body: broken })).status, 400);
  const large = 'x'.repeat(100_000);
  assert.equal((await send(signed({ body: large }), { body: large })).status, 413);
});

test('a signature beside another credential is refused, and a signature header alone opens nothing', async () => {
  const { iora } = first;
  const { key } = await iora.output<{ key: string }>('keys.create', await iora.session(`${randomUUID()}@example.com`), {
    name: 'k',
  });
  const authorization = `Bearer ${key}`;
  assert.equal((await send({ authorization })).status, 200);
  assert.equal((await send({ authorization, ...signed() })).status, 401);
  assert.equal((await send({ authorization, 'x-iora-signature': 'x' })).status, 401);
  assert.equal((await send({ authorization, 'x-iora-signature': '' })).status, 401);
  assert.equal((await send({ 'x-iora-signature': '0'.repeat(64) })).status, 401);
});

test('a key that is limited stays limited, whatever headers of a service come with it', async () => {
  const ownerId = await tenant({ minute: 2, month: 100 });
  const [row] = await first.iora.sql('SELECT slug FROM organizations WHERE id = $1', [ownerId]);
  const owner = await first.iora.session(`owner@${row.slug}.example.com`, row.slug);
  const { key } = await first.iora.output<{ key: string }>('keys.create', owner, { name: 'k' });
  const statuses = [];
  for (let call = 0; call < 4; call += 1) {
    const headers = without(signed({ tenant: ownerId }), 'x-iora-signature');
    statuses.push((await send({ authorization: `Bearer ${key}`, ...headers })).status);
  }
  assert.deepEqual(statuses, [200, 200, 429, 429]);
});

test('what a service spends for a tenant is on the books of the tenant, whose limits do not stop it', async () => {
  const ownerId = await tenant({ minute: 1, month: 2 });
  const { iora } = first;
  for (let call = 0; call < 4; call += 1) {
    const { status, headers } = await send(signed({ tenant: ownerId }));
    assert.equal(status, 200);
    assert.match(headers.get('ratelimit-policy') ?? '', /^"service";q=60000;w=60$/);
  }
  assert.equal(
    (await send(signed({ tenant: ownerId, body: '{"symbol":"NOPE"}' }), { body: '{"symbol":"NOPE"}' })).status,
    404,
  );
  const [{ slug }] = await iora.sql('SELECT slug FROM organizations WHERE id = $1', [ownerId]);
  const owner = await iora.member(`admin@${slug}.example.com`, slug, 'admin');
  const usage = await iora.output<{ month: { calls: number; cost: number }; remaining: { month: number } }>(
    'usage.get',
    owner,
  );
  assert.deepEqual([usage.month.cost, usage.remaining.month], [4, 0]);
  const outcome = await iora.call('market.get_price', owner, { symbol: 'BTC' });
  assert.deepEqual(outcome.ok ? 'ok' : outcome.error.code, 'quota_exceeded', 'the tenant itself is at its limit');
  assert.equal((await send(signed({ tenant: ownerId }))).status, 200, 'and is served through the service');
  await iora.output('usage.get', owner);
  const rows = await iora.sql(
    'SELECT user_id, org_id, api_key_id, cost, billable FROM usage_logs WHERE owner_id = $1 AND status_code = 200',
    [ownerId],
  );
  assert.equal(rows.length, 5);
  for (const row of rows) {
    assert.deepEqual(row, { user_id: null, org_id: ownerId, api_key_id: null, cost: 1, billable: true });
  }
});

test('without a tenant a service is an owner of its own; with a person that person pays', async () => {
  assert.equal((await send(signed({}, other))).status, 200);
  const { userId } = await first.iora.session(`${randomUUID()}@example.com`);
  assert.equal((await send(signed({ tenant: userId ?? '' }, other))).status, 200);
  const rows = async (ownerId: string) =>
    first.iora.sql('SELECT user_id, org_id, billable FROM usage_logs WHERE owner_id = $1', [ownerId]);
  await until(async () => (await rows('service_other')).length > 0, 'the call of the service is written');
  assert.deepEqual(await rows('service_other'), [{ user_id: null, org_id: null, billable: true }]);
  await until(async () => (await rows(userId ?? '')).length > 0, 'the call for the person is written');
  assert.deepEqual(await rows(userId ?? ''), [{ user_id: userId, org_id: null, billable: true }]);
});

test('a tenant that is unknown or suspended is not served, and suspending holds as soon as it is told', async () => {
  for (const unknown of ['org_nobody', 'user_nobody', 'acme', 'service_gateway']) {
    const { status, problem } = await send(signed({ tenant: unknown }));
    assert.deepEqual([status, problem['code']], [403, 'forbidden'], unknown);
    assert.match(String(problem['detail']), /x-iora-tenant names no owner that can be served/);
  }
  const ownerId = await tenant();
  const served = async () => (await send(signed({ tenant: ownerId }), { to: second })).status;
  assert.equal(await served(), 200);
  for (const [suspendedAt, status] of [
    ['now()', 403],
    ['NULL', 200],
  ] as const) {
    await first.iora.sql(`UPDATE organizations SET suspended_at = ${suspendedAt} WHERE id = $1`, [ownerId]);
    const notice = JSON.stringify({ id: randomUUID(), tags: [`owner:${ownerId}`] });
    await first.iora.sql(`SELECT pg_notify('iora_invalidate', $1)`, [notice]);
    await until(async () => (await served()) === status, `the other instance answers ${status}`);
  }
});

test('a service may use the tools and nothing else of a tenant', async () => {
  const ownerId = await tenant();
  for (const [method, path] of [
    ['GET', '/user/usage'],
    ['GET', '/user/api-keys'],
    ['GET', '/user/api-keys/current'],
  ] as const) {
    const headers = signed({ method, target: path, body: '', tenant: ownerId });
    const { status } = await send(without(headers, 'content-type'), { method, path, body: undefined });
    assert.equal(status, 403, path);
  }
});

test('an agent that signs its messages is answered over MCP', async () => {
  const ownerId = await tenant();
  const client = new Client({ name: 'test', version: '1.0.0' }, { versionNegotiation: { mode: 'auto' } });
  const signing: typeof fetch = async (input, init) => {
    const request = new Request(input, init);
    const body = await request.clone().text();
    const { pathname: target } = new URL(request.url);
    const headers = signed({ method: request.method, target, body, tenant: ownerId });
    for (const [name, value] of Object.entries(headers)) request.headers.set(name, value);
    return fetch(request);
  };
  await client.connect(new StreamableHTTPClientTransport(new URL(`${first.url}/mcp`), { fetch: signing }));
  const { tools } = await client.listTools();
  assert.deepEqual(tools.map(({ name }) => name).sort(), ['get_price', 'list_symbols']);
  const called = await client.callTool({ name: 'get_price', arguments: { symbol: 'BTC' } });
  assert.equal((called.structuredContent as Record<string, unknown>)['symbol'], 'BTC');
  await client.close();
  const rows = () => first.iora.sql('SELECT cost FROM usage_logs WHERE owner_id = $1', [ownerId]);
  await until(async () => (await rows()).length === 1, 'the tenant pays for the call');

  const message = '{"jsonrpc":"2.0","id":1,"method":"tools/list"}';
  const headers = { accept: 'application/json, text/event-stream', ...signed({ target: '/mcp', body: message }) };
  await assertRefused(send(headers, { path: '/mcp', body: `${message} ` }), 'a message that was not signed');
});

test('the detail of the health is for a service that signs, and the word for everybody', async () => {
  const path = '/health/database';
  const headers = signed({ method: 'GET', target: path, body: '' });
  const get = { method: 'GET', path, body: undefined };
  const { status, body } = await send(headers, get);
  assert.deepEqual([status, Object.keys(body).sort()], [200, ['postgresql', 'status', 'usage', 'version']]);
  for (const refused of [headers, {}, signed({ method: 'GET', target: path, body: '' }, retired)]) {
    assert.deepEqual((await send(refused, get)).body, { status: 'healthy' });
  }
});

test('a service that calls beyond its own ceiling is asked to wait, for whichever tenant and also for what is free', async () => {
  const busy = signerOf('busy-1');
  const limited = await startHttpApplication(database, {
    settings: {
      SERVICE_SECRETS: `${spelled('busy', busy)},${spelled('other', other)}`,
      SERVICE_REQUESTS_PER_MINUTE: '5',
    },
    secrets: first.iora.secrets,
  });
  const [one, two] = [await tenant(), await tenant()];
  const price = (tenantId: string, signer = busy) => send(signed({ tenant: tenantId }, signer), { to: limited });
  const symbols = () =>
    send(signed({ target: '/tools/list_symbols', body: '{}' }, busy), {
      path: '/tools/list_symbols',
      body: '{}',
      to: limited,
    });
  try {
    for (const tenantId of [one, two, one]) assert.equal((await price(tenantId)).status, 200);
    for (let call = 0; call < 2; call += 1) assert.equal((await symbols()).status, 200);
    for (const answer of [await price(one), await symbols()]) {
      assert.equal(answer.status, 429);
      assert.match(String(answer.problem['detail']), /5 calls are allowed in any 60 s for this service/);
      assert.deepEqual([answer.problem['policy'], answer.problem['limit']], ['service', 5]);
      assert.ok(Number(answer.headers.get('retry-after')) >= 1);
    }
    assert.equal((await price(one, other)).status, 200, 'another service has a ceiling of its own');
  } finally {
    await limited.close();
  }
});

test('a nonce is kept until no signature with it can be accepted any more', async () => {
  const atMs = Math.floor(Date.now() / 1_000) * 1_000;
  const headers = signed({ atMs });
  assert.equal((await send(headers)).status, 200);
  const rows = await first.iora.sql('SELECT key_id, expires_at FROM service_nonces WHERE nonce = $1', [
    headers['x-iora-nonce'],
  ]);
  assert.deepEqual(rows, [{ key_id: current.keyId, expires_at: new Date(atMs + 420_000) }]);
  await assertRefused(send({ ...signed({}, retired), 'x-iora-nonce': 'never-kept-nonce' }), 'no signature');
  const kept = await first.iora.sql('SELECT FROM service_nonces WHERE nonce = $1', ['never-kept-nonce']);
  assert.equal(kept.length, 0, 'nobody without a secret makes rows');
});

test('with PostgreSQL away no signed call is accepted, since its nonce could have been used before', async () => {
  const { hostname, port } = new URL(database.apiUrl);
  const proxy = await startTcpProxy({ host: hostname, port: Number(port) });
  const settings = { SERVICE_SECRETS: spelled('gateway', current), DATABASE_CONNECTION_TIMEOUT: '200' };
  const serviceUrl = throughProxy(database.apiUrl, proxy);
  const cutOff = await startHttpApplication(database, { settings, secrets: first.iora.secrets, serviceUrl });
  const tenantId = await tenant();
  try {
    assert.equal((await send(signed({ tenant: tenantId }), { to: cutOff })).status, 200);
    proxy.set('reset');
    for (const change of [{}, { tenant: tenantId }]) {
      const { status, problem, headers } = await send(signed(change), { to: cutOff });
      assert.deepEqual([status, problem['code']], [503, 'unavailable']);
      assert.ok(headers.has('retry-after'));
    }
    proxy.set('pass');
    await until(async () => (await send(signed(), { to: cutOff })).status === 200, 'it goes on by itself');
  } finally {
    proxy.set('pass');
    await cutOff.close();
    await proxy.close();
  }
});

test('nothing that is logged holds a secret or a signature, and the line of a call says which service made it', async () => {
  const headers = signed();
  assert.equal((await send(headers)).status, 200);
  const hidden = [old, current, other].flatMap(({ secret }) => [secret.toString('base64'), secret.toString('hex')]);
  hidden.push(headers['x-iora-signature'] ?? '');
  const lines = [...first.iora.log.lines(), ...second.iora.log.lines()];
  assert.ok(lines.some((line) => line.includes('"service":"gateway"')));
  for (const line of lines) for (const text of hidden) assert.ok(!line.includes(text), line);
});
