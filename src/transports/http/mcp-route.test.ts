import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BODY_BYTES_MAX } from './http-limits.ts';
import type { McpPart } from './http-parts.ts';
import { authorised, openMcp, testOperations, testServer } from './test-server.ts';

const call = { method: 'POST', url: '/mcp', headers: authorised } as const;

/** Runs get_price for every symbol in the body, then answers with the outcomes' kinds. */
const runsSymbols: McpPart = {
  ...openMcp,
  async handle(_request, response, body, caller) {
    const [getPrice] = testOperations();
    const results: boolean[] = [];
    for (const symbol of body as string[]) {
      if (getPrice !== undefined) results.push((await caller.invoke(getPrice, caller.call, { symbol })).ok);
    }
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(results));
  },
};

test('the transport writes its answer; the line names what it ran and what that cost', async () => {
  const { app, lines, metrics } = testServer({ mcp: runsSymbols });
  const answer = await app.inject({ ...call, payload: ['BTC', 'ETH', 'UNKNOWN'] });
  assert.deepEqual(answer.json(), [true, true, false]);
  assert.ok(answer.headers['x-request-id']);
  assert.equal(answer.headers['cache-control'], 'no-store');
  assert.equal(answer.headers['x-content-type-options'], 'nosniff');

  const [line] = lines;
  assert.equal(lines.length, 1);
  assert.equal(line?.['transport'], 'mcp');
  assert.equal(line?.['route'], '/mcp');
  assert.equal(line?.['tenant'], 'owner-1');
  assert.deepEqual(line?.['operations'], Array(3).fill('market.get_price'));
  assert.deepEqual([line?.['status'], line?.['code'], line?.['cost']], [200, 'unknown_symbol', 2]);
  assert.equal(line?.['requestId'], answer.headers['x-request-id']);
  assert.match(await metrics.text(), /iora_calls_total{transport="mcp",operation="market.get_price",code="ok"} 2/);
});

test('a failure behind a tool call is logged with its cause although the answer is 200', async () => {
  const { app, lines } = testServer({ mcp: runsSymbols });
  const answer = await app.inject({ ...call, payload: ['BROKEN'] });
  assert.equal(answer.statusCode, 200);
  assert.equal(lines[0]?.level, 'error');
  assert.equal(lines[0]?.['code'], 'internal');
});

test('the operations named in the line are bounded', async () => {
  const { app, lines } = testServer({ mcp: runsSymbols });
  await app.inject({ ...call, payload: Array(30).fill('BTC') });
  assert.deepEqual(lines[0]?.['operations'], Array(20).fill('market.get_price'));
  assert.equal(lines[0]?.['cost'], 30);
});

test('403: a refused Host or Origin, before the credential is looked at', async () => {
  const asked: unknown[] = [];
  const { app } = testServer({
    mcp: {
      ...runsSymbols,
      check(headers) {
        asked.push(headers);
        return 'Not this site.';
      },
    },
  });
  const answer = await app.inject({ method: 'POST', url: '/mcp', headers: { host: 'evil', origin: 'http://evil' } });
  assert.equal(answer.statusCode, 403);
  assert.equal(answer.json().code, 'forbidden');
  assert.equal(answer.json().detail, 'Not this site.');
  assert.deepEqual(asked, [{ host: 'evil', origin: 'http://evil' }]);
});

test('401: with the challenge', async () => {
  const { app } = testServer({ mcp: runsSymbols });
  const answer = await app.inject({ method: 'POST', url: '/mcp', payload: {} });
  assert.equal(answer.statusCode, 401);
  assert.equal(answer.headers['www-authenticate'], 'Bearer');
});

test('413: a body beyond the bound', async () => {
  const { app } = testServer({ mcp: runsSymbols });
  const answer = await app.inject({ ...call, payload: JSON.stringify(['x'.repeat(BODY_BYTES_MAX)]) });
  assert.equal(answer.statusCode, 413);
});

test('an empty body and broken JSON reach the transport as undefined', async () => {
  const bodies: unknown[] = [];
  const { app } = testServer({
    mcp: {
      ...openMcp,
      async handle(_request, response, body) {
        bodies.push(body);
        response.writeHead(400).end();
      },
    },
  });
  await app.inject(call);
  await app.inject({ ...call, payload: '{"jsonrpc":' });
  assert.deepEqual(bodies, [undefined, undefined]);
});

test('500: a transport that throws before it has answered', async () => {
  const { app, lines } = testServer({
    mcp: { ...openMcp, handle: () => Promise.reject(new Error('inner words')) },
  });
  const answer = await app.inject({ ...call, payload: {} });
  assert.equal(answer.statusCode, 500);
  assert.equal(answer.json().code, 'internal');
  assert.equal(answer.headers['x-request-id'], answer.json().requestId);
  assert.equal(lines[0]?.level, 'error');
});

test('405: there is no stream to open and no session to end', async () => {
  const { app } = testServer({ mcp: runsSymbols });
  for (const method of ['GET', 'DELETE'] as const) {
    const answer = await app.inject({ method, url: '/mcp', headers: authorised });
    assert.equal(answer.statusCode, 405);
    assert.equal(answer.headers['allow'], 'POST');
  }
});
