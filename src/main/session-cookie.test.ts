import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { type IdentityProvider, PUBLIC_URL, startIdentityProvider } from '../../test/support/identity-provider.ts';
import { startTestServer, type TestServer } from '../../test/support/server.ts';

// The cookie of a signed-in browser, and what pages of other origins can do with it, at the real server.

let clerk: IdentityProvider;
let server: TestServer;
before(async () => {
  clerk = await startIdentityProvider();
  server = await startTestServer(clerk.settings.clerk);
});
after(async () => {
  await server.stop();
  await clerk.stop();
});

async function send(path: string, init: { method?: string; headers?: Record<string, string>; token?: string } = {}) {
  const cookie = `other=1; __session=${init.token ?? (await clerk.clerkToken())}; last=2`;
  return fetch(`${server.baseUrl}${path}`, {
    method: init.method ?? 'GET',
    headers: { cookie, ...(init.method === 'POST' ? { 'content-type': 'application/json' } : {}), ...init.headers },
    ...(init.method === 'POST' ? { body: JSON.stringify({ name: 'x' }) } : {}),
  });
}

test('a cookie reads without an Origin, and writes only from a page of this very origin', async () => {
  assert.equal((await send('/user/profile')).status, 200);
  const write = async (headers: Record<string, string>) =>
    (await send('/user/api-keys', { method: 'POST', headers })).status;
  assert.equal(await write({ origin: PUBLIC_URL }), 201);
  assert.equal(await write({}), 403);
  for (const origin of [
    'null',
    'https://elsewhere.test',
    `${PUBLIC_URL}.elsewhere.test`,
    PUBLIC_URL.replace('https', 'http'),
    `${PUBLIC_URL}:8443`,
    server.baseUrl,
    'nonsense',
  ]) {
    assert.equal(await write({ origin }), 403, origin);
  }
  assert.equal((await send('/user/profile', { token: 'nonsense' })).status, 401);
});

test('a token in the header needs no Origin: no page can make a browser send it', async () => {
  const response = await fetch(`${server.baseUrl}/user/api-keys`, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${await clerk.clerkToken()}`,
      'content-type': 'application/json',
      origin: 'https://elsewhere.test',
    },
    body: JSON.stringify({ name: 'x' }),
  });
  assert.equal(response.status, 201);
});

test('an OAuth token makes no keys over HTTP either', async () => {
  const headers = { authorization: `Bearer ${await clerk.oauthToken()}`, 'content-type': 'application/json' };
  const create = await fetch(`${server.baseUrl}/user/api-keys`, { method: 'POST', headers, body: '{"name":"x"}' });
  assert.equal(create.status, 403);
  // Also where the token was issued for just that: a key would outlive it and the consent behind it.
  const scoped = await clerk.oauthToken({ claims: { scope: 'tools:read keys:read keys:write' } });
  const asked = await fetch(`${server.baseUrl}/user/api-keys`, {
    method: 'POST',
    headers: { ...headers, authorization: `Bearer ${scoped}` },
    body: '{"name":"x"}',
  });
  assert.deepEqual([asked.status, ((await asked.json()) as { code: string }).code], [403, 'forbidden']);
  const price = await fetch(`${server.baseUrl}/tools/get_price`, { method: 'POST', headers, body: '{"symbol":"BTC"}' });
  assert.equal(price.status, 200);
});

test('no other origin is let in by CORS, neither by a preflight nor by an answer', async () => {
  const preflight = await fetch(`${server.baseUrl}/user/api-keys`, {
    method: 'OPTIONS',
    headers: {
      origin: 'https://elsewhere.test',
      'access-control-request-method': 'POST',
      'access-control-request-headers': 'content-type',
    },
  });
  assert.ok(preflight.status >= 400, String(preflight.status));
  const read = await send('/user/profile', { headers: { origin: 'https://elsewhere.test' } });
  assert.equal(read.status, 200);
  for (const { headers } of [preflight, read]) {
    assert.deepEqual(
      [...headers.keys()].filter((name) => name.startsWith('access-control-')),
      [],
    );
  }
});
