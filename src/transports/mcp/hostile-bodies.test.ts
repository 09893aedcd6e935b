import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import fc from 'fast-check';
import { type Endpoint, startEndpoint } from './test-endpoint.ts';

// Whatever is posted to the endpoint is answered below 500, in JSON-RPC, and tells nothing of the inside.

const BODIES = 3_000;
/** Deeper than any recursion survives. */
const DEPTH = 50_000;

const names = ['get_price', 'list_symbols', '__proto__', 'constructor', 'toString', 'hasOwnProperty', ''];
const methods = [
  ...['tools/call', 'tools/list', 'ping', 'initialize', 'server/discover', 'subscriptions/listen', 'resources/list'],
  ...['notifications/initialized', 'notifications/cancelled', 'notifications/progress', '__proto__', 'constructor', ''],
];
const versions = ['2024-10-07', '2025-03-26', '2025-06-18', '2025-11-25', '2026-07-28', '2026-07-29', 'latest'];

const anything = fc.oneof(
  fc.jsonValue(),
  fc.constantFrom(null, 0, -1, 1.5, 2 ** 53, '', 'x'.repeat(5_000), [], {}, [null], [[]]),
  fc.dictionary(fc.constantFrom('__proto__', 'constructor', 'prototype', 'toJSON', 'then'), fc.jsonValue()),
);
/** The usual value, now and then anything: a message with one thing wrong gets further than one with many. */
const mostly = <T>(usual: fc.Arbitrary<T>) =>
  fc.oneof({ weight: 14, arbitrary: usual }, { weight: 1, arbitrary: anything });
/** The usual members, now and then with others. */
function withStrays(usual: Record<string, fc.Arbitrary<unknown>>, strays: readonly string[]): fc.Arbitrary<object> {
  const some = fc.record(Object.fromEntries(strays.map((name) => [name, anything])), { requiredKeys: [] });
  const rarely = fc.oneof({ weight: 5, arbitrary: fc.constant({}) }, { weight: 1, arbitrary: some });
  return fc.tuple(fc.record(usual), rarely).map(([members, others]) => ({ ...members, ...others }));
}

const client = mostly(fc.constant({ name: 'test', version: '1' }));
const envelope = withStrays(
  {
    'io.modelcontextprotocol/protocolVersion': mostly(fc.constant('2026-07-28')),
    'io.modelcontextprotocol/clientCapabilities': mostly(fc.constant({})),
  },
  ['io.modelcontextprotocol/clientInfo', 'io.modelcontextprotocol/logLevel', 'progressToken', '__proto__'],
);
const symbol = mostly(fc.constantFrom('BTC', 'BROKEN', 'NOSUCH'));
const args = mostly(withStrays({ symbol }, ['currency', '__proto__']));
const name = mostly(fc.constantFrom(...names));
const initializeParams = {
  protocolVersion: mostly(fc.constantFrom(...versions)),
  capabilities: mostly(fc.constant({})),
  clientInfo: client,
};
const strayParams = ['_meta', 'cursor', 'notifications', 'inputResponses', 'requestState', 'requestId', '__proto__'];
const params = fc.oneof(
  withStrays({ name, arguments: args }, strayParams),
  withStrays({ name, arguments: args, _meta: mostly(envelope) }, strayParams),
  withStrays({ _meta: mostly(envelope), notifications: mostly(fc.constant({ toolsListChanged: true })) }, strayParams),
  withStrays(initializeParams, strayParams),
);
/** Calls in which only the arguments and what no tool reads can be wrong. */
const soundEnvelope = fc.constant({
  'io.modelcontextprotocol/protocolVersion': '2026-07-28',
  'io.modelcontextprotocol/clientCapabilities': {},
});
const callStrays = ['cursor', 'notifications', 'inputResponses', '__proto__'];
const getPriceParams = fc.oneof(
  withStrays({ name: fc.constant('get_price'), arguments: args }, callStrays),
  withStrays({ name: fc.constant('get_price'), arguments: args, _meta: soundEnvelope }, callStrays),
);
const method = mostly(fc.oneof(fc.constant('tools/call'), fc.constantFrom(...methods)));
const jsonrpc = mostly(fc.constant('2.0'));
const message = fc.oneof(
  fc.record({
    jsonrpc: fc.constant('2.0'),
    id: fc.oneof(fc.nat(), fc.string()),
    method: fc.constant('tools/call'),
    params: getPriceParams,
  }),
  withStrays({ jsonrpc, id: mostly(fc.nat()), method, params: mostly(params) }, ['result', 'error', '__proto__']),
  withStrays({ jsonrpc, method, params: mostly(params) }, ['result', 'error', '__proto__']),
  withStrays({ jsonrpc, id: mostly(fc.nat()), method }, []),
);
const body = fc.oneof(
  { weight: 8, arbitrary: message },
  { weight: 1, arbitrary: fc.array(mostly(message), { maxLength: 5 }) },
  { weight: 1, arbitrary: anything },
);

/** Headers that fit the message, so that it gets past them; or any. */
function headersFor(value: unknown): fc.Arbitrary<Record<string, string>> {
  const { method, params: given } = Object(value) as { method?: unknown; params?: unknown };
  const { name, _meta: meta } = Object(given) as { name?: unknown; _meta?: unknown };
  const stateless = {
    'mcp-protocol-version': '2026-07-28',
    'mcp-method': headerText(method),
    'mcp-name': headerText(name),
  };
  const fitting = Object.keys(Object(meta)).length > 0 ? stateless : {};
  return fc.oneof(
    { weight: 5, arbitrary: fc.constant<Record<string, string>>(fitting) },
    { weight: 1, arbitrary: fc.constant(stateless) },
    { weight: 1, arbitrary: fc.record({ 'mcp-protocol-version': fc.constantFrom(...versions) }) },
    {
      weight: 1,
      arbitrary: fc.record({ 'mcp-method': fc.constantFrom(...methods), 'mcp-name': fc.constantFrom(...names) }),
    },
  );
}

function headerText(value: unknown): string {
  return typeof value === 'string' ? value.replace(/[^\x21-\x7e]/g, '') : 'none';
}

describe('hostile bodies', () => {
  let endpoint: Endpoint;
  before(async () => {
    endpoint = await startEndpoint();
  });
  after(() => endpoint.close());

  /** Posts and checks the answer; returns its status. */
  async function post(text: string, headers: Record<string, string> = {}): Promise<number> {
    const answer = await endpoint.post(text, headers);
    assert.ok(answer.status < 500, `${answer.status} ${answer.text}`);
    assert.doesNotMatch(answer.text, /swordfish|node_modules|\.ts:/);
    if (answer.status === 202) {
      assert.equal(answer.text, '');
      return answer.status;
    }
    for (const { jsonrpc } of messagesIn(answer.text)) assert.equal(jsonrpc, '2.0');
    return answer.status;
  }

  it(`get an answer of the protocol, ${BODIES} of them, and some get as far as a tool`, async () => {
    const statuses = new Map<number, number>();
    const given = body.chain((value) => fc.tuple(fc.constant(value), headersFor(value)));
    await fc.assert(
      fc.asyncProperty(given, async ([value, headers]) => {
        const status = await post(JSON.stringify(value), headers);
        statuses.set(status, (statuses.get(status) ?? 0) + 1);
      }),
      { numRuns: BODIES },
    );
    for (const status of [200, 202, 400]) {
      assert.ok((statuses.get(status) ?? 0) > BODIES / 100, `${status}: ${statuses.get(status) ?? 0} of ${BODIES}`);
    }
    assert.ok(endpoint.usage.length > BODIES / 20, `${endpoint.usage.length} metered calls`);
  });

  it('get one however deep they are', async () => {
    const deepArray = '['.repeat(DEPTH) + ']'.repeat(DEPTH);
    const deepObject = `${'{"a":'.repeat(DEPTH)}0${'}'.repeat(DEPTH)}`;
    for (const deep of [deepArray, deepObject]) {
      const call = (fields: string) =>
        `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_price",${fields}}}`;
      const meta =
        '"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":';
      const modern = { 'mcp-protocol-version': '2026-07-28', 'mcp-method': 'tools/call', 'mcp-name': 'get_price' };
      await post(deep);
      await post(`{"jsonrpc":"2.0","id":${deep},"method":"ping"}`);
      await post(`{"jsonrpc":"2.0","id":1,"method":"ping","params":${deep}}`);
      await post(`{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":${deep}}}`);
      await post(call(`"arguments":{"symbol":${deep}}`));
      await post(call(`"arguments":{"symbol":"BTC","other":${deep}}`));
      await post(call(`"_meta":{"x":${deep}}`));
      await post(call(`"arguments":{"symbol":"BTC","other":${deep}},"_meta":{${meta}{}}`), modern);
      await post(call(`"arguments":{"symbol":"BTC"},"_meta":{${meta}${deep}}`), modern);
      await post(call(`"inputResponses":${deep},"_meta":{${meta}{}}`), modern);
    }
  });

  it('get one for members of any kind under names of prototypes', async () => {
    const calls = [
      '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_price","arguments":{"symbol":"BTC","__proto__":{"currency":5}}}}',
      '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"__proto__":{"name":"get_price"}}}',
      '{"__proto__":{"jsonrpc":"2.0"},"id":1,"method":"ping"}',
      '{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":{"__proto__":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}}',
    ];
    const statuses: number[] = [];
    for (const call of calls) statuses.push(await post(call));
    assert.equal(statuses[0], 400, 'an argument of such a name is refused, not left out');
    assert.equal(({} as Record<string, unknown>)['currency'], undefined);
  });
});

/** The JSON-RPC messages of an answer: an event stream's, a batch's, or the one there is. */
function messagesIn(text: string): { jsonrpc?: unknown }[] {
  const events = [...text.matchAll(/^data: (.*)$/gm)].map(([, data]) => JSON.parse(data ?? ''));
  return events.length > 0 ? events : [JSON.parse(text)].flat();
}
