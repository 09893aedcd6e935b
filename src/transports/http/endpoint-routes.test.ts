import assert from 'node:assert/strict';
import { test } from 'node:test';
import { unavailable } from '../../kernel/errors.ts';
import { authorised, testServer } from './test-server.ts';

test('an endpoint answers as it words it, with the headers that every answer has', async () => {
  const { app, lines } = testServer();
  const answer = await app.inject({ method: 'GET', url: '/healthz' });
  assert.equal(answer.statusCode, 200);
  assert.equal(answer.body, 'ok\n');
  assert.equal(answer.headers['content-type'], 'text/plain; charset=utf-8');
  assert.ok(answer.headers['x-request-id']);
  assert.equal(lines[0]?.['route'], '/healthz');
});

test('an endpoint is told who calls and from where; its headers are kept', async () => {
  const { app, lines } = testServer({ trustedProxies: ['127.0.0.1'] });
  const answer = await app.inject({
    method: 'GET',
    url: '/whoami',
    headers: { ...authorised, 'x-forwarded-for': '203.0.113.9' },
  });
  assert.deepEqual(answer.json(), { ip: '203.0.113.9', peer: '127.0.0.1', owner: 'owner-1' });
  assert.equal(answer.headers['cache-control'], 'max-age=1');
  assert.equal(answer.headers['x-extra'], 'yes');
  assert.deepEqual([lines[0]?.level, lines[0]?.['status']], ['info', 503]);
});

test('a missing, bad or unverifiable credential is the same as none', async () => {
  const down = () => Promise.reject(unavailable('The database is away.'));
  const requests = [
    { server: testServer(), headers: {} },
    { server: testServer(), headers: { authorization: 'Bearer wrong' } },
    { server: testServer({ authenticate: down }), headers: authorised },
  ];
  for (const { server, headers } of requests) {
    assert.equal((await server.app.inject({ method: 'GET', url: '/whoami', headers })).json().owner, null);
  }
});

test('500: an endpoint that throws tells nothing', async () => {
  const { app, lines } = testServer({
    endpoints: [
      {
        method: 'GET',
        path: '/broken',
        summary: 'Throws',
        answer() {
          throw new Error('inner words');
        },
      },
    ],
  });
  const answer = await app.inject({ method: 'GET', url: '/broken' });
  assert.equal(answer.statusCode, 500);
  assert.doesNotMatch(answer.body, /inner words/);
  assert.equal(lines[0]?.level, 'error');
});
