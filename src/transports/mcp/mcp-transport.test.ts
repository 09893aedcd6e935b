import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import {
  type CallToolResult,
  Client,
  ProtocolError,
  ProtocolErrorCode,
  StreamableHTTPClientTransport,
} from '@modelcontextprotocol/client';
import { createMcpTransport } from './mcp-transport.ts';
import { getPrice, principalWith, startEndpoint } from './test-endpoint.ts';

const revisions = [
  { revision: '2025-11-25', options: {} },
  { revision: '2026-07-28', options: { versionNegotiation: { mode: 'auto' as const } } },
];

/** An endpoint with an official client connected to it; both end with the test. */
async function connect(t: TestContext, options: object, endpointOptions: Parameters<typeof startEndpoint>[0] = {}) {
  const endpoint = await startEndpoint(endpointOptions);
  const client = new Client({ name: 'test', version: '1.0.0' }, options);
  t.after(async () => {
    await client.close();
    await endpoint.close();
  });
  await client.connect(new StreamableHTTPClientTransport(new URL(endpoint.url)));
  const call = async (name: string, args: Record<string, unknown>) =>
    (await client.callTool({ name, arguments: args })) as CallToolResult;
  return { endpoint, client, call };
}

/** The problem of a refusal, after checking that it is told as every refusal is. */
function problemOf(result: CallToolResult): Record<string, unknown> {
  assert.equal(result.isError, true);
  assert.equal(result.structuredContent, undefined);
  assert.equal(result.content.length, 1);
  const [only] = result.content;
  assert.equal(only?.type, 'text');
  const problem = JSON.parse(only.text);
  assert.deepEqual(result._meta?.['iora/problem'], problem);
  return problem;
}

for (const { revision, options } of revisions) {
  describe(`the official client at ${revision}`, () => {
    it('learns what the server is and can do', async (t) => {
      const { client } = await connect(t, options);
      assert.equal(client.getNegotiatedProtocolVersion(), revision);
      assert.deepEqual(client.getServerVersion(), { name: 'iora', title: 'IORA', version: '1.2.3' });
      assert.deepEqual(client.getServerCapabilities(), { tools: {} });
      assert.match(client.getInstructions() ?? '', /retryAfterMs/);
    });

    it('sees the tools its permissions allow, with schemas, cost and hints', async (t) => {
      const { client } = await connect(t, options);
      const { tools } = await client.listTools();
      assert.deepEqual(
        tools.map(({ name }) => name),
        ['get_price', 'list_symbols'],
      );
      const [tool] = tools;
      assert.equal(tool?.title, 'The price of a symbol');
      assert.equal(tool.description, 'The price of a symbol. Costs 1 unit of the rate limit and the monthly quota.');
      assert.deepEqual(tool.inputSchema.required, ['symbol']);
      assert.deepEqual(tool.outputSchema?.['required'], ['symbol', 'currency', 'price']);
      assert.deepEqual(tool._meta, { 'iora/cost': 1 });
      assert.deepEqual(tool.annotations, {
        title: 'The price of a symbol',
        readOnlyHint: true,
        idempotentHint: true,
        destructiveHint: false,
        openWorldHint: true,
      });
    });

    it('sees other tools as another kind of caller', async (t) => {
      const principal = principalWith('session', ['usage:read']);
      const { client } = await connect(t, options, { principal });
      const { tools } = await client.listTools();
      assert.deepEqual(
        tools.map(({ name, _meta, annotations }) => [name, _meta?.['iora/cost'], annotations?.openWorldHint]),
        [
          ['usage_get', 0, false],
          ['organizations_leave', 2, false],
        ],
      );
      assert.equal(tools[1]?.annotations?.destructiveHint, true);
      assert.equal(tools[1]?.annotations?.readOnlyHint, false);
    });

    it('gets an answer as structured content and as text, with what is left of its limits', async (t) => {
      const { endpoint, call } = await connect(t, options);
      const result = await call('get_price', { symbol: 'btc' });
      const price = { symbol: 'BTC', currency: 'USD', price: '64000.12' };
      assert.deepEqual(result.structuredContent, price);
      assert.deepEqual(result.content, [{ type: 'text', text: JSON.stringify(price) }]);
      assert.equal(result.isError, undefined);
      assert.deepEqual(result._meta?.['iora/limits'], [
        { policy: 'minute', limit: 60, remaining: 59, windowSeconds: 60, resetSeconds: 7 },
      ]);
      assert.deepEqual(
        endpoint.usage.map(({ operation, statusCode, cost }) => [operation, statusCode, cost]),
        [[getPrice, 200, 1]],
      );
      const free = await call('list_symbols', {});
      assert.equal(free._meta?.['iora/limits'], undefined);
    });

    it('is told in the same problem as over HTTP what is wrong with its arguments', async (t) => {
      const { endpoint, call } = await connect(t, options);
      const problem = problemOf(await call('get_price', { symbol: '!' }));
      assert.equal(problem['code'], 'invalid_input');
      assert.equal(problem['status'], 400);
      assert.equal(problem['retryable'], false);
      assert.equal(problem['type'], 'https://iora.example/docs/errors#invalid_input');
      assert.match(String(problem['requestId']), /^request-\d+$/);
      assert.equal(problemOf(await call('get_price', {}))['code'], 'invalid_input');
      assert.deepEqual(problemOf(await call('get_price', { symbol: 'NOSUCH' }))['nearest'], ['BTC']);
      assert.deepEqual(endpoint.usage, []);
    });

    it('is told when to come back, and what is left, where it called too often', async (t) => {
      const { call } = await connect(t, options, { callsAdmitted: 0 });
      const result = await call('get_price', { symbol: 'BTC' });
      const problem = problemOf(result);
      assert.equal(problem['code'], 'rate_limited');
      assert.equal(problem['retryable'], true);
      assert.equal(problem['retryAfterMs'], 1500);
      assert.notEqual(result._meta?.['iora/limits'], undefined);
      const away = problemOf(await (await connect(t, options)).call('get_price', { symbol: 'AWAY' }));
      assert.equal(away['code'], 'unavailable');
      assert.equal(away['retryAfterMs'], 2000);
    });

    it('learns nothing of the inside from a failure', async (t) => {
      const { call } = await connect(t, options);
      const result = await call('get_price', { symbol: 'BROKEN' });
      assert.equal(problemOf(result)['code'], 'internal');
      assert.doesNotMatch(JSON.stringify(result), /swordfish/);

      const invoke = async () => {
        throw new Error('the password is swordfish');
      };
      const thrown = await (await connect(t, options, { invoke })).call('get_price', { symbol: 'BTC' });
      assert.equal(problemOf(thrown)['code'], 'internal');
      assert.doesNotMatch(JSON.stringify(thrown), /swordfish/);
    });

    it('is told which tools there are when it names another, be it unknown or not for it', async (t) => {
      const { call } = await connect(t, options);
      for (const name of ['usage_get', 'keys_create', '__proto__', 'constructor', 'x'.repeat(10_000)]) {
        await assert.rejects(call(name, {}), (error) => {
          assert.ok(error instanceof ProtocolError);
          assert.equal(error.code, ProtocolErrorCode.InvalidParams);
          assert.match(error.message, /You may call: get_price, list_symbols\.$/);
          assert.ok(error.message.length < 200);
          assert.deepEqual(error.data, { tools: ['get_price', 'list_symbols'] });
          return true;
        });
      }
      const nobody = await connect(t, options, { principal: principalWith('api_key', []) });
      await assert.rejects(nobody.call('get_price', {}), /Your credential allows none\./);
      assert.deepEqual((await nobody.client.listTools()).tools, []);
    });

    it('is told that there is no second page', async (t) => {
      const { client } = await connect(t, options);
      await assert.rejects(client.listTools({ cursor: 'page-2' }), /Unknown cursor/);
    });
  });
}

describe('the tools', () => {
  const create = (operations: Parameters<typeof createMcpTransport>[0]['operations']) =>
    createMcpTransport({ operations, version: '1.2.3' });

  it('are refused at once where two share a name', () => {
    assert.throws(() => create([getPrice, getPrice]), /share a name/);
  });

  it('are refused at once where the schema is no object', () => {
    assert.throws(() => create([{ ...getPrice, output: getPrice.output.array() }]), /get_price: .* must be objects/);
  });
});
