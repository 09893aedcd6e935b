import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AppError } from '../../kernel/errors.ts';
import { BODY_BYTES_MAX, JSON_DEPTH_MAX } from './http-limits.ts';
import { authorised, CREDENTIAL, minuteLimit, testPrincipal, testServer } from './test-server.ts';

const uuidV7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

const getPrice = (payload?: unknown, headers: Record<string, string> = {}) =>
  ({
    method: 'POST',
    url: '/tools/get_price',
    headers: { ...authorised, ...headers },
    ...(payload === undefined ? {} : { payload: payload as object | string }),
  }) as const;

test('200: the output as JSON, the limits in the headers, one wide line in the log', async () => {
  const { app, lines } = testServer();
  const answer = await app.inject(getPrice({ symbol: 'BTC' }, { 'user-agent': 'test' }));

  assert.equal(answer.statusCode, 200);
  assert.equal(answer.headers['content-type'], 'application/json');
  assert.deepEqual(answer.json(), { symbol: 'BTC', price: '64000.12', sources: [{ name: 'simulated' }] });
  assert.equal(answer.headers['cache-control'], 'no-store');
  assert.equal(answer.headers['x-content-type-options'], 'nosniff');
  assert.equal(answer.headers['ratelimit-policy'], '"minute";q=60;w=60');
  assert.equal(answer.headers['ratelimit'], '"minute";r=59;t=60');
  assert.match(String(answer.headers['x-request-id']), uuidV7);

  const [{ ms, dbMs, ...line } = { ms: undefined, dbMs: undefined }] = lines;
  assert.equal(lines.length, 1);
  assert.ok(Number(ms) >= 0);
  assert.equal(dbMs, 0);
  assert.deepEqual(line, {
    level: 'info',
    method: 'POST',
    route: '/tools/get_price',
    operation: 'market.get_price',
    operations: undefined,
    tenant: 'owner-1',
    keyId: 'family-1',
    service: undefined,
    status: 200,
    code: 'ok',
    cost: 1,
    requestId: answer.headers['x-request-id'],
    transport: 'http',
  });
});

test('the request id is ours, not the caller’s, and the one that the operation sees', async () => {
  const ids: string[] = [];
  const { app } = testServer({ seen: (_input, requestId) => ids.push(requestId) });
  const answer = await app.inject(getPrice({ symbol: 'BTC' }, { 'x-request-id': 'mine' }));
  assert.notEqual(answer.headers['x-request-id'], 'mine');
  assert.deepEqual(ids, [answer.headers['x-request-id']]);
});

test('201: the status that the operation names; a body left away is an empty object', async () => {
  const { app } = testServer();
  const bare = await app.inject({ method: 'POST', url: '/user/api-keys', headers: authorised });
  const typed = await app.inject({
    method: 'POST',
    url: '/user/api-keys',
    headers: { ...authorised, 'content-type': 'application/json' },
  });
  for (const answer of [bare, typed]) {
    assert.equal(answer.statusCode, 201);
    assert.deepEqual(answer.json(), { id: 'new', name: 'unnamed' });
    assert.equal(answer.headers['ratelimit'], undefined);
  }
});

test('path, query and body become one input', async () => {
  const inputs: unknown[] = [];
  const { app } = testServer({ seen: (input) => inputs.push(input) });
  const statuses = [
    await app.inject({ method: 'GET', url: '/user/api-keys?limit=7&cursor=abc%20d', headers: authorised }),
    await app.inject({ method: 'PATCH', url: '/user/api-keys/k%2F1', headers: authorised, payload: { name: 'n' } }),
    await app.inject({ method: 'DELETE', url: '/user/api-keys/k1', headers: authorised }),
  ].map(({ statusCode }) => statusCode);
  assert.deepEqual(statuses, [200, 200, 200]);
  assert.deepEqual(inputs, [{ limit: 7, cursor: 'abc d' }, { id: 'k/1', name: 'n' }, { id: 'k1' }]);
});

test('HEAD answers as GET does, without the body', async () => {
  const { app } = testServer();
  const get = await app.inject({ method: 'GET', url: '/user/api-keys', headers: authorised });
  const head = await app.inject({ method: 'HEAD', url: '/user/api-keys', headers: authorised });
  assert.equal(head.statusCode, 200);
  assert.equal(head.body, '');
  assert.equal(head.headers['content-length'], get.headers['content-length']);
});

const refused: [what: string, request: object, status: number, code: string][] = [
  ['a field that does not fit', getPrice({ symbol: 7 }), 400, 'invalid_input'],
  ['an unknown field', getPrice({ symbol: 'BTC', colour: 'red' }), 400, 'invalid_input'],
  ['broken JSON', getPrice('{"symbol":', { 'content-type': 'application/json' }), 400, 'malformed_request'],
  ['an array', getPrice([{ symbol: 'BTC' }]), 400, 'malformed_request'],
  ['null', getPrice('null', { 'content-type': 'application/json' }), 400, 'malformed_request'],
  [
    'text that is no UTF-8',
    getPrice(Buffer.from([0x7b, 0xff, 0x7d]), { 'content-type': 'application/json' }),
    400,
    'malformed_request',
  ],
  [
    '__proto__',
    getPrice('{"symbol":"BTC","__proto__":{}}', { 'content-type': 'application/json' }),
    400,
    'malformed_request',
  ],
  [
    'an escaped and nested __proto__',
    getPrice('{"a":[{"\\u005f_proto__":1}]}', { 'content-type': 'application/json' }),
    400,
    'malformed_request',
  ],
  ['constructor', getPrice({ constructor: { prototype: {} } }), 400, 'malformed_request'],
  [
    'deep nesting',
    getPrice(`${'{"a":'.repeat(JSON_DEPTH_MAX)}{}${'}'.repeat(JSON_DEPTH_MAX)}`, {
      'content-type': 'application/json',
    }),
    400,
    'malformed_request',
  ],
  [
    'a query beside the body',
    { ...getPrice({ symbol: 'BTC' }), url: '/tools/get_price?symbol=ETH' },
    400,
    'invalid_input',
  ],
  ['a body without a type', { ...getPrice(Buffer.from('{}')) }, 415, 'unsupported_media_type'],
  [
    'another media type',
    getPrice('symbol=BTC', { 'content-type': 'application/x-www-form-urlencoded' }),
    415,
    'unsupported_media_type',
  ],
  [
    'another media type without a body',
    getPrice(undefined, { 'content-type': 'text/plain' }),
    415,
    'unsupported_media_type',
  ],
  [
    'another character set',
    getPrice('{}', { 'content-type': 'application/json; charset=utf-16' }),
    415,
    'unsupported_media_type',
  ],
  ['a compressed body', getPrice({}, { 'content-encoding': 'gzip' }), 415, 'unsupported_media_type'],
  ['a body beyond the bound', getPrice({ symbol: 'B'.repeat(BODY_BYTES_MAX) }), 413, 'payload_too_large'],
  [
    'a parameter twice',
    { method: 'GET', url: '/user/api-keys?limit=1&limit=2', headers: authorised },
    400,
    'invalid_input',
  ],
  [
    'a forbidden parameter',
    { method: 'GET', url: '/user/api-keys?__proto__=1', headers: authorised },
    400,
    'invalid_input',
  ],
  [
    'a parameter out of range',
    { method: 'GET', url: '/user/api-keys?limit=101', headers: authorised },
    400,
    'invalid_input',
  ],
  [
    'a body with DELETE',
    { method: 'DELETE', url: '/user/api-keys/k1', headers: authorised, payload: {} },
    400,
    'malformed_request',
  ],
  [
    'a body with GET',
    { method: 'GET', url: '/user/api-keys', headers: authorised, payload: {} },
    400,
    'malformed_request',
  ],
  [
    'the path’s parameter in the body',
    { method: 'PATCH', url: '/user/api-keys/k1', headers: authorised, payload: { id: 'k2' } },
    400,
    'invalid_input',
  ],
  [
    'the path’s parameter in the query',
    { method: 'DELETE', url: '/user/api-keys/k1?id=k2', headers: authorised },
    400,
    'invalid_input',
  ],
  ['an unknown symbol', getPrice({ symbol: 'UNKNOWN' }), 404, 'unknown_symbol'],
];

for (const [what, request, status, code] of refused) {
  test(`${status} ${code}: ${what}`, async () => {
    const { app, lines } = testServer();
    const answer = await app.inject(request);
    assert.equal(answer.statusCode, status, answer.body);
    assert.equal(answer.headers['content-type'], 'application/problem+json');
    const problem = answer.json();
    assert.equal(problem.code, code);
    assert.equal(problem.status, status);
    assert.equal(problem.type, `/docs/errors#${code}`);
    assert.equal(problem.requestId, answer.headers['x-request-id']);
    assert.deepEqual(
      lines.map((line) => [line.level, line['status'], line['code'], line['cost']]),
      [['info', status, code, 0]],
    );
  });
}

test('a body of exactly the bound is read', async () => {
  const { app } = testServer();
  const empty = JSON.stringify({ name: '' });
  const name = 'n'.repeat(BODY_BYTES_MAX - empty.length);
  const answer = await app.inject({ method: 'POST', url: '/user/api-keys', headers: authorised, payload: { name } });
  assert.equal(answer.statusCode, 201);
});

const foreign: [what: string, authorization: string | undefined][] = [
  ['no credential', undefined],
  ['an empty one', ''],
  ['another scheme', 'Basic dXNlcjpwYXNz'],
  ['nothing after Bearer', 'Bearer '],
  ['an unknown key', 'Bearer iora_pk_test_bad'],
  ['one too long', `Bearer ${'x'.repeat(9_000)}`],
];

for (const [what, authorization] of foreign) {
  test(`401: ${what}`, async () => {
    const { app, lines } = testServer();
    const headers = authorization === undefined ? {} : { authorization };
    const answer = await app.inject({ ...getPrice({ symbol: 'BTC' }), headers });
    assert.equal(answer.statusCode, 401);
    assert.equal(answer.headers['www-authenticate'], 'Bearer');
    assert.equal(answer.json().code, 'unauthenticated');
    assert.doesNotMatch(JSON.stringify(lines), /Basic|iora_pk|xxx/);
  });
}

test('the credential is looked at before the body', async () => {
  const { app } = testServer();
  const answer = await app.inject({ ...getPrice('{"', { 'content-type': 'text/plain' }), headers: {} });
  assert.equal(answer.statusCode, 401);
});

test('an authenticate that has to ask first is waited for', async () => {
  const { app } = testServer({ authenticate: async () => testPrincipal() });
  assert.equal((await app.inject(getPrice({ symbol: 'BTC' }))).statusCode, 200);
});

test('403: a key without the permission', async () => {
  const { app } = testServer({ authenticate: () => testPrincipal(['usage:read']) });
  const answer = await app.inject(getPrice({ symbol: 'BTC' }));
  assert.equal(answer.statusCode, 403);
  assert.equal(answer.json().requiredPermission, 'tools:read');
});

test('429: the limits and a whole number of seconds to wait', async () => {
  const limits = [{ ...minuteLimit, remaining: 0 }];
  const error = new AppError('rate_limited', undefined, { details: { retryAfterSeconds: 0.2 } });
  const { app } = testServer({
    admission: { admit: () => ({ admitted: false, limits, error }), refund() {}, refuseUnmetered: () => null },
  });
  const answer = await app.inject(getPrice({ symbol: 'BTC' }));
  assert.equal(answer.statusCode, 429);
  assert.equal(answer.headers['retry-after'], '1');
  assert.equal(answer.headers['x-ratelimit-remaining'], '0');
  assert.equal(answer.json().retryable, true);
});

test('500: nothing of what failed is told, but it is in the log', async () => {
  const { app, lines } = testServer();
  const answer = await app.inject(getPrice({ symbol: 'BROKEN' }));
  assert.equal(answer.statusCode, 500);
  assert.equal(answer.json().code, 'internal');
  assert.doesNotMatch(answer.body, /secret inner words/);
  const [line] = lines;
  assert.equal(lines.length, 1);
  assert.equal(line?.level, 'error');
  const { err } = line as unknown as { err: Error };
  assert.equal((err.cause as Error).message, 'secret inner words');
});

test('500: an invoke that throws, and an output that is no JSON', async () => {
  const throwing = testServer({ invoke: () => Promise.reject(new Error('inner')) });
  const unwritable = testServer({
    invoke: () => Promise.resolve({ ok: true, status: 200, output: 1n, limits: [] }),
  });
  for (const { app, lines } of [throwing, unwritable]) {
    const answer = await app.inject(getPrice({ symbol: 'BTC' }));
    assert.equal(answer.statusCode, 500);
    assert.equal(answer.json().code, 'internal');
    assert.equal(lines[0]?.level, 'error');
  }
});

test('neither credential, body nor query is logged', async () => {
  const { app, lines } = testServer();
  await app.inject(getPrice({ symbol: 'SECRETBODY' }));
  await app.inject({ method: 'GET', url: '/user/api-keys?cursor=SECRETQUERY', headers: authorised });
  await app.inject({ method: 'GET', url: '/unknown/SECRETPATH?x=SECRETQUERY', headers: authorised });
  assert.equal(lines.length, 3);
  const text = JSON.stringify(lines);
  assert.doesNotMatch(text, /SECRET/);
  assert.ok(!text.includes(CREDENTIAL.slice('Bearer '.length)));
});

test('calls are counted by operation and code', async () => {
  const { app, metrics } = testServer();
  await app.inject(getPrice({ symbol: 'BTC' }));
  await app.inject(getPrice({ symbol: 'BTC' }));
  await app.inject(getPrice({ symbol: 7 }));
  await app.inject({ ...getPrice({}), headers: {} });
  const text = await metrics.text();
  const count = (code: string) =>
    new RegExp(`iora_calls_total{transport="http",operation="market.get_price",code="${code}"} (\\d+)`).exec(text)?.[1];
  assert.deepEqual([count('ok'), count('invalid_input'), count('unauthenticated')], ['2', '1', '1']);
  assert.match(text, /iora_call_seconds_count{transport="http",operation="market.get_price"} 3/);
});

test('the caller’s address is the peer’s, or what a trusted proxy says', async () => {
  const forwarded = { 'x-forwarded-for': '203.0.113.9, 10.1.2.3' };
  const addressFor = async (trustedProxies: string[], headers: Record<string, string>) => {
    const calls: (string | null)[] = [];
    const { app } = testServer({
      trustedProxies,
      invoke: async (_operation, call) => {
        calls.push(call.ipAddress);
        return { ok: true, status: 200, output: {}, limits: [] };
      },
    });
    await app.inject(getPrice({ symbol: 'BTC' }, headers));
    return calls[0];
  };
  assert.equal(await addressFor([], forwarded), '127.0.0.1');
  assert.equal(await addressFor(['192.0.2.1'], forwarded), '127.0.0.1');
  assert.equal(await addressFor(['127.0.0.1'], forwarded), '10.1.2.3');
  assert.equal(await addressFor(['127.0.0.1', '10.0.0.0/8'], forwarded), '203.0.113.9');
  assert.equal(await addressFor(['127.0.0.1'], { 'x-forwarded-for': 'no address' }), '127.0.0.1');
});

test('the user agent is kept up to its bound', async () => {
  const agents: (string | null)[] = [];
  const { app } = testServer({
    invoke: async (_operation, call) => {
      agents.push(call.userAgent);
      return { ok: true, status: 200, output: {}, limits: [] };
    },
  });
  await app.inject(getPrice({ symbol: 'BTC' }, { 'user-agent': 'a'.repeat(300) }));
  assert.equal(agents[0]?.length, 256);
});
