import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Permission, Principal } from '../../kernel/context.ts';
import { AppError } from '../../kernel/errors.ts';
import { createMcpTransport, createProtectedResource } from '../mcp/index.ts';
import { openMcp, testOperations, testPrincipal, testServer } from './test-server.ts';

const publicUrl = 'https://iora.example';
const metadata = `resource_metadata="${publicUrl}/.well-known/oauth-protected-resource/mcp"`;
const operations = testOperations();
const resource = createProtectedResource({ publicUrl, issuers: ['https://login.example'], operations });

/** A server whose token `good` is an OAuth token of those scopes, whatever else the person behind it may do. */
function serverFor(scopes: readonly Permission[]) {
  const person: Principal = { ...testPrincipal([...scopes]), kind: 'session', key: null, scopes: new Set(scopes) };
  const mcp = createMcpTransport({ operations, version: '1.2.3' });
  return testServer({
    operations,
    endpoints: resource.endpoints,
    publicUrl,
    mcp: { ...mcp, resource, check: () => null },
    authenticate({ headers }) {
      if (headers['authorization'] === 'Bearer good') return person;
      throw new AppError('unauthenticated');
    },
  }).app;
}

const bearer = (token: string) => ({ authorization: `Bearer ${token}` });
const mcpHeaders = { accept: 'application/json, text/event-stream', 'content-type': 'application/json' };
const message = (method: string, params: object = {}) => ({ jsonrpc: '2.0', id: 1, method, params });

function send(app: ReturnType<typeof serverFor>, body: object, headers: Record<string, string> = bearer('good')) {
  return app.inject({ method: 'POST', url: '/mcp', headers: { ...mcpHeaders, ...headers }, payload: body });
}

test('the metadata names resource, issuer and scopes, at the path of /mcp and at the root', async () => {
  const app = serverFor(['tools:read']);
  for (const url of ['/.well-known/oauth-protected-resource/mcp', '/.well-known/oauth-protected-resource']) {
    const answer = await app.inject({ method: 'GET', url });
    assert.equal(answer.statusCode, 200);
    assert.deepEqual(answer.json(), {
      resource: 'https://iora.example/mcp',
      authorization_servers: ['https://login.example'],
      scopes_supported: ['tools:read', 'keys:read', 'keys:write'],
      bearer_methods_supported: ['header'],
      resource_name: 'IORA',
      resource_documentation: 'https://iora.example/docs',
    });
  }
});

test('a resource below a path has its metadata where RFC 9728 puts it', () => {
  const below = createProtectedResource({ publicUrl: 'https://example.com/iora', issuers: [], operations });
  assert.equal(below.metadataUrl, 'https://example.com/.well-known/oauth-protected-resource/iora/mcp');
});

test('401 on /mcp: the challenge leads to the metadata, and tells a refused token from none', async () => {
  const app = serverFor(['tools:read']);
  const none = await send(app, message('tools/list'), {});
  assert.equal(none.statusCode, 401);
  assert.equal(none.headers['www-authenticate'], `Bearer scope="tools:read keys:read keys:write", ${metadata}`);
  const refused = await send(app, message('tools/list'), bearer('bad'));
  assert.match(String(refused.headers['www-authenticate']), /^Bearer error="invalid_token", scope=/);
});

test('401 elsewhere, and on /mcp without an issuer: the plain challenge', async () => {
  const app = serverFor(['tools:read']);
  const answer = await app.inject({ method: 'GET', url: '/user/api-keys' });
  assert.deepEqual([answer.statusCode, answer.headers['www-authenticate']], [401, 'Bearer']);
  const plain = testServer({ mcp: { ...openMcp, handle: async () => undefined } }).app;
  assert.equal((await send(plain, message('tools/list'), {})).headers['www-authenticate'], 'Bearer');
});

test('a token with the scope calls the tool', async () => {
  const app = serverFor(['tools:read']);
  const answer = await send(app, message('tools/call', { name: 'get_price', arguments: { symbol: 'BTC' } }));
  assert.equal(answer.statusCode, 200);
  assert.equal(answer.json().result.structuredContent.price, '64000.12');
});

test('403: a tool whose scope the token lacks, with what to ask for', async () => {
  const app = serverFor(['tools:read']);
  const listing = message('tools/call', { name: 'keys_list', arguments: {} });
  for (const body of [listing, [message('tools/list'), listing]]) {
    const answer = await send(app, body);
    assert.equal(answer.statusCode, 403);
    assert.equal(answer.json().code, 'insufficient_scope');
    assert.deepEqual(answer.json().missingScopes, ['keys:read']);
    assert.equal(
      answer.headers['www-authenticate'],
      `Bearer error="insufficient_scope", scope="tools:read keys:read", ${metadata}`,
    );
  }
});

test('403: a token that opens no tool at all is told so at its first message', async () => {
  const answer = await send(serverFor([]), message('tools/list'));
  assert.equal(answer.statusCode, 403);
  assert.deepEqual(answer.json().missingScopes, ['tools:read', 'keys:read', 'keys:write']);
});

test('whatever else a body holds, the scope check lets the protocol word its refusal', async () => {
  const app = serverFor(['tools:read']);
  for (const body of [message('tools/call', { name: 'nothing' }), message('tools/call'), {}, [null, 7, 'x']]) {
    assert.notEqual((await send(app, body)).statusCode, 403);
  }
});

test('403 over HTTP: an operation beyond the scopes, which no resource metadata belongs to', async () => {
  const answer = await serverFor(['tools:read']).inject({
    method: 'GET',
    url: '/user/api-keys',
    headers: bearer('good'),
  });
  assert.equal(answer.statusCode, 403);
  assert.equal(answer.json().code, 'insufficient_scope');
  assert.equal(answer.headers['www-authenticate'], 'Bearer error="insufficient_scope", scope="tools:read keys:read"');
});
