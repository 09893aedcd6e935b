// Cases over MCP: `tools/call` in the revisions spoken, and messages that are none.
import assert from 'node:assert/strict';
import type { FastifyInstance, InjectOptions } from 'fastify';
import { type Operation, toolName } from '../../src/kernel/operation.ts';
import { type Answer, assertOutput, assertProblem, type Carrier, isFields } from './property-answers.ts';

interface Message {
  readonly body: string;
  readonly headers: Readonly<Record<string, string>>;
}

/** Revisions by the header they are called with; the first is what stands for none. */
const REVISIONS = [undefined, '2025-06-18', '2025-11-25', '2026-07-28'] as const;
const envelope = {
  'io.modelcontextprotocol/protocolVersion': '2026-07-28',
  'io.modelcontextprotocol/clientCapabilities': {},
};

/** What may be wrong with a message: its JSON, its form, method or params; its media types; a header that contradicts it. */
const PROTOCOL_ERRORS = [-32700, -32600, -32601, -32602, -32000, -32020];

/** Sends to the server without a socket. */
export function mcpCarrier(server: FastifyInstance): Carrier {
  async function send(operation: Operation, { body, headers }: Message): Promise<Answer> {
    const request: InjectOptions = { method: 'POST', url: '/mcp', headers, payload: body };
    const { statusCode, headers: answered, body: text } = await server.inject(request);
    const requestId = String(answered['x-request-id']);
    assert.match(requestId, /^[0-9a-f-]{36}$/, 'every answer has a request id');
    assert.ok(statusCode < 500, `answered ${statusCode} ${text.slice(0, 500)}`);
    const value: unknown = JSON.parse(text);
    assert.ok(isFields(value), 'an answer is an object');
    if (answered['content-type'] === 'application/problem+json') {
      const problem = assertProblem(value, requestId);
      assert.equal(problem.status, statusCode);
      assert.ok(['unauthenticated', 'payload_too_large', 'forbidden'].includes(problem.code), text);
      return { transport: 'mcp', requestId, code: problem.code, problem, text };
    }
    const { error, result } = value as { error?: { code: number }; result?: Record<string, unknown> };
    if (error !== undefined) {
      assert.ok(PROTOCOL_ERRORS.includes(error.code), `answered ${text.slice(0, 500)}`);
      return { transport: 'mcp', requestId, code: 'protocol', text };
    }
    assert.equal(statusCode, 200);
    return { transport: 'mcp', requestId, text, ...resultOf(operation, result ?? {}, requestId) };
  }

  return {
    transport: 'mcp',
    carry(operation, input, caller, style) {
      const revision = REVISIONS[style.revision % REVISIONS.length];
      const message = toMessage(operation, input, caller.credential, revision);
      const expected = isFields(input) ? JSON.parse(JSON.stringify(input)) : undefined;
      if (style.raw === null) return { expected, send: () => send(operation, message) };
      const variant = variants[style.raw % variants.length];
      return { expected: undefined, send: () => send(operation, { ...message, ...variant?.(message) }) };
    },
  };
}

/** What a result of `tools/call` says; asserts that it says it in the form that agents are promised. */
function resultOf(operation: Operation, result: Record<string, unknown>, requestId: string) {
  const content = result['content'] as { type: string; text: string }[];
  assert.equal(content.length, 1);
  const said: unknown = JSON.parse(content[0]?.text ?? '');
  if (result['isError'] === true) {
    const problem = assertProblem(said, requestId);
    assert.deepEqual((result['_meta'] as Record<string, unknown>)['iora/problem'], problem);
    assert.ok(!('structuredContent' in result), 'a refusal has no structured content');
    return { code: problem.code, problem };
  }
  const output = result['structuredContent'];
  assert.deepEqual(said, output);
  assertOutput(operation, output);
  return { code: 'ok' as const, output };
}

function toMessage(
  operation: Operation,
  input: unknown,
  credential: string,
  revision: (typeof REVISIONS)[number],
): Message {
  const name = toolName(operation);
  const isStateless = revision === '2026-07-28';
  const params = { name, arguments: input, ...(isStateless ? { _meta: envelope } : {}) };
  return {
    body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/call', params }),
    headers: {
      authorization: `Bearer ${credential}`,
      host: 'localhost',
      accept: 'application/json, text/event-stream',
      'content-type': 'application/json',
      ...(revision === undefined ? {} : { 'mcp-protocol-version': revision }),
      ...(isStateless ? { 'mcp-method': 'tools/call', 'mcp-name': name } : {}),
    },
  };
}

type Variant = (message: Message) => Partial<Message>;

const body =
  (change: (text: string) => string): Variant =>
  ({ body: text }) => ({ body: change(text) });
const header =
  (name: string, value: string): Variant =>
  ({ headers }) => ({ headers: { ...headers, [name]: value } });

const variants: readonly Variant[] = [
  body((text) => text.slice(0, -1)),
  body(() => ''),
  body(() => 'null'),
  body(() => '[]'),
  body(() => '{}'),
  body(() => '"text"'),
  body((text) => text.replace('"2.0"', '"1.0"')),
  body((text) => text.replace('"id":1', '"id":null')),
  body((text) => text.replace('"id":1', '"id":{"a":1}')),
  body((text) => text.replace('"id":1', '"id":"a long one"')),
  body((text) => text.replace('tools/call', 'tools/nothing')),
  body((text) => text.replace('"arguments":', '"argument":')),
  body((text) => text.replace(/"name":"\w+"/, '"name":5')),
  body((text) => text.replace(/"name":"\w+"/, '"name":"__proto__"')),
  body((text) => text.replace(/"name":"\w+"/, '"name":"keys_create"')),
  body((text) => text.replace(/"params":.*/, '"params":[]}')),
  body((text) => text.replace(/"params":.*/, '"params":"x"}')),
  body((text) => text.replace(/"params":.*/, '"id":1}')),
  header('content-type', 'text/plain'),
  header('accept', 'text/html'),
  header('mcp-protocol-version', '1999-01-01'),
  header('mcp-protocol-version', '2026-07-28'),
  header('mcp-session-id', 'unknown'),
  header('mcp-name', 'list_symbols'),
  header('mcp-method', 'tools/list'),
  header('authorization', 'Bearer nothing'),
];
