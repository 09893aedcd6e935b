import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { describe, it, type TestContext } from 'node:test';
import type { Invoke } from '../../kernel/invoke.ts';
import { type Endpoint, postHeaders, startEndpoint } from './test-endpoint.ts';

async function start(t: TestContext, options: Parameters<typeof startEndpoint>[0] = {}): Promise<Endpoint> {
  const endpoint = await startEndpoint(options);
  t.after(() => endpoint.close());
  return endpoint;
}

const envelope = {
  'io.modelcontextprotocol/protocolVersion': '2026-07-28',
  'io.modelcontextprotocol/clientCapabilities': {},
};
const price = (id: number) => ({
  jsonrpc: '2.0',
  id,
  method: 'tools/call',
  params: { name: 'get_price', arguments: { symbol: 'BTC' } },
});
const ping = (id: number) => ({ jsonrpc: '2.0', id, method: 'ping' });

describe('the MCP endpoint', () => {
  it('answers older revisions as plain JSON, keeps no session and keeps headers set before', async (t) => {
    const endpoint = await start(t);
    const initialize = {
      jsonrpc: '2.0',
      id: 1,
      method: 'initialize',
      params: { protocolVersion: '2025-06-18', capabilities: {}, clientInfo: { name: 'test', version: '1' } },
    };
    const answer = await endpoint.post(JSON.stringify(initialize));
    assert.equal(answer.status, 200);
    assert.equal(answer.headers.get('content-type'), 'application/json');
    assert.equal(answer.headers.get('mcp-session-id'), null);
    assert.equal(answer.headers.get('x-request-id'), 'request-1');
    assert.equal(JSON.parse(answer.text).result.protocolVersion, '2025-06-18');

    const initialized = await endpoint.post('{"jsonrpc":"2.0","method":"notifications/initialized"}');
    assert.deepEqual([initialized.status, initialized.text], [202, '']);
    const pong = await endpoint.post(JSON.stringify(ping(2)), { 'mcp-protocol-version': '2025-11-25' });
    assert.deepEqual(JSON.parse(pong.text), { jsonrpc: '2.0', id: 2, result: {} });
  });

  it('answers a version it does not know with those it does', async (t) => {
    const endpoint = await start(t);
    const unknown = await endpoint.post(JSON.stringify(ping(1)), { 'mcp-protocol-version': '2025-01-01' });
    assert.equal(unknown.status, 400);
    assert.match(unknown.text, /2025-11-25/);

    const later = { ...envelope, 'io.modelcontextprotocol/protocolVersion': '2030-01-01' };
    const body = { jsonrpc: '2.0', id: 1, method: 'server/discover', params: { _meta: later } };
    const future = await endpoint.post(JSON.stringify(body), {
      'mcp-protocol-version': '2030-01-01',
      'mcp-method': 'server/discover',
    });
    assert.equal(future.status, 400);
    assert.deepEqual(JSON.parse(future.text).error.data, { supported: ['2026-07-28'], requested: '2030-01-01' });
  });

  it('holds the headers of 2026-07-28 against the body', async (t) => {
    const endpoint = await start(t);
    const body = JSON.stringify({ ...price(1), params: { ...price(1).params, _meta: envelope } });
    const headers = { 'mcp-protocol-version': '2026-07-28', 'mcp-method': 'tools/call', 'mcp-name': 'get_price' };
    assert.equal((await endpoint.post(body, headers)).status, 200);
    for (const wrong of [
      { 'mcp-method': 'tools/list' },
      { 'mcp-name': 'list_symbols' },
      { 'mcp-protocol-version': '2025-11-25' },
    ]) {
      const answer = await endpoint.post(body, { ...headers, ...wrong });
      assert.equal(answer.status, 400);
      assert.equal(JSON.parse(answer.text).error.code, -32020);
    }
    assert.equal(endpoint.usage.length, 1);
  });

  it('says how long the list of tools may be kept, and that nobody may share it', async (t) => {
    const endpoint = await start(t);
    for (const method of ['tools/list', 'server/discover']) {
      const answer = await endpoint.post(
        JSON.stringify({ jsonrpc: '2.0', id: 1, method, params: { _meta: envelope } }),
        {
          'mcp-protocol-version': '2026-07-28',
          'mcp-method': method,
        },
      );
      const { ttlMs, cacheScope } = JSON.parse(answer.text).result;
      assert.deepEqual({ ttlMs, cacheScope }, { ttlMs: 60_000, cacheScope: 'private' });
    }
  });

  it('ends a subscription at once, for it announces no changes', async (t) => {
    const endpoint = await start(t);
    const params = { _meta: envelope, notifications: { toolsListChanged: true } };
    const answer = await endpoint.post(
      JSON.stringify({ jsonrpc: '2.0', id: 9, method: 'subscriptions/listen', params }),
      {
        'mcp-protocol-version': '2026-07-28',
        'mcp-method': 'subscriptions/listen',
      },
    );
    assert.equal(answer.headers.get('content-type'), 'text/event-stream');
    assert.match(answer.text, /notifications\/subscriptions\/acknowledged.*"resultType":"complete"/s);
  });

  it('takes nothing but POST', async (t) => {
    const endpoint = await start(t);
    for (const method of ['GET', 'DELETE', 'PUT', 'PATCH', 'OPTIONS', 'HEAD']) {
      const answer = await fetch(endpoint.url, { method, headers: postHeaders });
      assert.equal(answer.status, 405, method);
      assert.equal(answer.headers.get('allow'), 'POST');
      await answer.text();
    }
  });

  it('takes nothing but JSON, and wants JSON accepted', async (t) => {
    const endpoint = await start(t);
    const body = JSON.stringify(ping(1));
    assert.equal((await endpoint.post(body, { 'content-type': 'text/plain' })).status, 415);
    assert.equal((await endpoint.post(body, { accept: 'text/html' })).status, 406);
    for (const text of ['', '{', 'nonsense']) {
      const answer = await endpoint.post(text);
      assert.equal(answer.status, 400);
      assert.equal(JSON.parse(answer.text).error.code, -32700);
    }
  });

  it('answers a batch of 2025-03-26, and refuses one of any other revision', async (t) => {
    const endpoint = await start(t);
    const notification = { jsonrpc: '2.0', method: 'notifications/initialized' };
    const batch = JSON.stringify([price(1), notification, ping(2)]);
    for (const headers of [{}, { 'mcp-protocol-version': '2025-03-26' }]) {
      const answers = JSON.parse((await endpoint.post(batch, headers)).text);
      assert.deepEqual(
        answers.map(({ id }: { id: number }) => id),
        [1, 2],
      );
      assert.equal(answers[0].result.structuredContent.price, '64000.12');
    }
    assert.equal((await endpoint.post(JSON.stringify([notification]))).status, 202);
    for (const version of ['2025-06-18', '2025-11-25', '2026-07-28']) {
      const answer = await endpoint.post(batch, { 'mcp-protocol-version': version });
      assert.equal(answer.status, 400);
      assert.equal(JSON.parse(answer.text).error.code, -32600);
    }
    assert.equal((await endpoint.post('[]')).status, 400);
    assert.equal((await endpoint.post(JSON.stringify(Array.from({ length: 101 }, (_, id) => ping(id))))).status, 400);
    assert.equal(endpoint.usage.length, 2);
  });

  // Time limit: were the cancellation obeyed, the answer would never come.
  it('answers a batch whose member cancels another', { timeout: 10_000 }, async (t) => {
    const endpoint = await start(t);
    const cancellation = { jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: 1 } };
    const answer = await endpoint.post(JSON.stringify([price(1), cancellation]));
    assert.equal(answer.status, 200);
    assert.match(answer.text, /64000\.12/);
  });

  it('goes on when a caller leaves before the answer', async (t) => {
    const called = Promise.withResolvers<void>();
    const answer = Promise.withResolvers<void>();
    const invoke: Invoke = async () => {
      called.resolve();
      await answer.promise;
      return { ok: true, status: 200, output: { symbol: 'BTC', currency: 'USD', price: '1' }, limits: [] };
    };
    const endpoint = await start(t, { invoke });
    const body = JSON.stringify(price(1));
    const socket = connect(Number(new URL(endpoint.url).port), '127.0.0.1');
    const headers = Object.entries({ host: 'localhost', ...postHeaders, 'content-length': Buffer.byteLength(body) });
    socket.write(
      `POST /mcp HTTP/1.1\r\n${headers.map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n${body}`,
    );
    await called.promise;
    socket.destroy();
    await once(socket, 'close');
    answer.resolve();
    assert.equal((await endpoint.post(JSON.stringify(ping(2)))).status, 200);
  });
});
