import assert from 'node:assert/strict';
import { METHODS } from 'node:http';
import { test } from 'node:test';
import { authorised, testServer } from './test-server.ts';

test('404: a problem for a path that is not there, whatever the method', async () => {
  const { app, lines } = testServer();
  for (const method of ['GET', 'POST', 'OPTIONS', 'PROPFIND'] as const) {
    const answer = await app.inject({ method: method as 'GET', url: '/not/here?x=1', payload: '{' });
    assert.equal(answer.statusCode, 404);
    assert.equal(answer.json().code, 'not_found');
    assert.equal(answer.headers['x-request-id'], answer.json().requestId);
  }
  assert.ok(lines.every((line) => line['route'] === null));
});

test('404: what is not offered over HTTP', async () => {
  const { app } = testServer();
  assert.equal((await app.inject({ method: 'GET', url: '/tenants', headers: authorised })).statusCode, 404);
});

test('405: the methods of the path in Allow, for every other method there is', async () => {
  const { app } = testServer();
  const taken = new Set(['GET', 'HEAD', 'POST', 'CONNECT']);
  for (const method of METHODS.filter((name) => !taken.has(name))) {
    const answer = await app.inject({ method: method as 'PUT', url: '/user/api-keys?x=1' });
    assert.equal(answer.statusCode, 405, method);
    assert.equal(answer.headers['allow'], 'GET, HEAD, POST');
    assert.equal(answer.headers['access-control-allow-origin'], undefined);
  }
});

test('405: a path with parameters', async () => {
  const { app } = testServer();
  const answer = await app.inject({ method: 'GET', url: '/user/api-keys/some-id' });
  assert.equal(answer.statusCode, 405);
  assert.equal(answer.headers['allow'], 'DELETE, PATCH');
  assert.deepEqual(answer.json().allow, ['DELETE', 'PATCH']);
});

test('400: a path that is not well encoded', async () => {
  const { app } = testServer();
  const answer = await app.inject({ method: 'DELETE', url: '/user/api-keys/%zz', headers: authorised });
  assert.equal(answer.statusCode, 400);
  assert.equal(answer.json().code, 'malformed_request');
});

test('414: a path or a part of it beyond its bound', async () => {
  const { app } = testServer();
  for (const url of [`/user/api-keys/${'a'.repeat(300)}`, `/user/api-keys?cursor=${'a'.repeat(5_000)}`]) {
    const answer = await app.inject({ method: 'DELETE', url, headers: authorised });
    assert.equal(answer.statusCode, 414);
    assert.equal(answer.json().code, 'uri_too_long');
    assert.ok(answer.headers['x-request-id']);
  }
});
