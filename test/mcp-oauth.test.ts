// An MCP client's way to /mcp with OAuth, against a real server and by the official client's own code: the challenge, the metadata
// it leads to, a token of the issuer named there, and more scopes when a tool asks for them.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import {
  Client,
  discoverOAuthProtectedResourceMetadata,
  extractWWWAuthenticateParams,
  StreamableHTTPClientTransport,
} from '@modelcontextprotocol/client';
import { type IdentityProvider, startIdentityProvider } from './support/identity-provider.ts';
import { freePort } from './support/redis.ts';
import { startTestServer, type TestServer } from './support/server.ts';

let provider: IdentityProvider;
let server: TestServer;
let mcp: string;
before(async () => {
  provider = await startIdentityProvider();
  const port = await freePort();
  const publicUrl = `http://127.0.0.1:${port}`;
  mcp = `${publicUrl}/mcp`;
  server = await startTestServer({
    ...provider.settings.oidc,
    ...provider.settings.clerk,
    PUBLIC_URL: publicUrl,
    PORT: String(port),
  });
});
after(async () => {
  await server.stop();
  await provider.stop();
});

const initialize = {
  jsonrpc: '2.0',
  id: 1,
  method: 'initialize',
  params: { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'test', version: '1' } },
};

function post(body: object, authorization?: string): Promise<Response> {
  return fetch(mcp, {
    method: 'POST',
    headers: {
      accept: 'application/json, text/event-stream',
      'content-type': 'application/json',
      ...(authorization === undefined ? {} : { authorization }),
    },
    body: JSON.stringify(body),
  });
}

const callUsage = { jsonrpc: '2.0', id: 2, method: 'tools/call', params: { name: 'usage_get', arguments: {} } };

/** Tokens as the two kinds of issuer make them for this server's /mcp. */
const issuers: Readonly<Record<string, (scope: string, sub: string) => Promise<string>>> = {
  Clerk: (scope, sub) => provider.oauthToken({ claims: { aud: mcp, scope, sub } }),
  'an OIDC issuer': (scope, sub) => provider.oidcToken({ claims: { aud: mcp, scope, sub }, header: { typ: 'at+jwt' } }),
};

test('without a credential the challenge leads to the metadata, and that to the issuers', async () => {
  const refused = await post(initialize);
  assert.equal(refused.status, 401);
  const challenge = extractWWWAuthenticateParams(refused);
  assert.equal(challenge.scope, 'tools:read usage:read');
  assert.equal(challenge.error, undefined);
  const named = challenge.resourceMetadataUrl ?? assert.fail('no metadata is named');
  for (const options of [{ resourceMetadataUrl: named }, {}]) {
    const metadata = await discoverOAuthProtectedResourceMetadata(mcp, options);
    assert.equal(metadata.resource, mcp);
    assert.deepEqual(
      [...(metadata.authorization_servers ?? [])].sort(),
      [provider.issuer, provider.clerkIssuer].sort(),
    );
    assert.deepEqual(metadata.scopes_supported, ['tools:read', 'usage:read']);
  }
});

for (const [issuer, tokenFor] of Object.entries(issuers)) {
  test(`a token of ${issuer} opens what its scopes name; for more the client is told which to ask for`, async () => {
    const token = await tokenFor('tools:read', `user_${issuer.length}`);
    const client = new Client({ name: 'test', version: '1.0.0' });
    await client.connect(
      new StreamableHTTPClientTransport(new URL(mcp), {
        requestInit: { headers: { authorization: `Bearer ${token}` } },
      }),
    );
    const { tools } = await client.listTools();
    assert.deepEqual(
      tools.map(({ name }) => name),
      ['get_price', 'list_symbols'],
    );
    const answer = await client.callTool({ name: 'get_price', arguments: { symbol: 'BTC' } });
    assert.equal((answer.structuredContent as { symbol?: string }).symbol, 'BTC');
    await client.close();

    const refused = await post(callUsage, `Bearer ${token}`);
    assert.equal(refused.status, 403);
    const challenge = extractWWWAuthenticateParams(refused);
    assert.deepEqual([challenge.error, challenge.scope], ['insufficient_scope', 'tools:read usage:read']);
    assert.equal(
      challenge.resourceMetadataUrl?.href,
      `${new URL(mcp).origin}/.well-known/oauth-protected-resource/mcp`,
    );
    const wider = await tokenFor(challenge.scope ?? '', `user_${issuer.length}`);
    const allowed = await post(callUsage, `Bearer ${wider}`);
    assert.equal(allowed.status, 200);
    assert.match(await allowed.text(), /"calls":1/, 'the call of before is on the books of the same person');
  });
}

test('a token for another resource, without an audience, or opaque is refused, the last with what to change', async () => {
  const foreign = ['https://elsewhere.example/mcp', `${mcp}/`, undefined];
  for (const aud of foreign) {
    const tokens = [
      await provider.oauthToken({ claims: { aud } }),
      await provider.oidcToken({ claims: { aud, scope: 'tools:read' }, header: { typ: 'at+jwt' } }),
    ];
    for (const token of tokens) {
      const refused = await post(initialize, `Bearer ${token}`);
      assert.equal(refused.status, 401, String(aud));
      assert.equal(extractWWWAuthenticateParams(refused).error, 'invalid_token');
    }
  }
  const opaque = await post(initialize, 'Bearer oat_8XOIucKvqHVr5tYP123456789abcdefghij');
  assert.equal(opaque.status, 401);
  assert.match(((await opaque.json()) as { detail: string }).detail, /access tokens as JWTs/i);
});

test('a session of a person and an API key go on opening /mcp beside OAuth', async () => {
  const session = await provider.clerkToken({ claims: { azp: new URL(mcp).origin } });
  const key = await server.createKey({ session });
  for (const credential of [session, key]) {
    const answer = await post(initialize, `Bearer ${credential}`);
    assert.equal(answer.status, 200);
  }
});
