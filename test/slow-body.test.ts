// A caller is known from the head of a request, and its body may take half a minute to arrive: whoever is revoked in between is
// refused all the same.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { text } from 'node:stream/consumers';
import { after, before, test } from 'node:test';
import { until } from './support/application.ts';
import { type HttpApplication, startHttpApplication } from './support/http-application.ts';
import { type TestCluster, testCluster } from './support/postgres.ts';

let cluster: TestCluster;
let http: HttpApplication;
before(async () => {
  cluster = await testCluster();
  http = await startHttpApplication(await cluster.database(), { settings: { KEY_CACHE_TTL: '60' } });
});
after(async () => {
  await http.close();
  await cluster.stop();
});

let people = 0;
async function person() {
  people += 1;
  const email = `person-${people}@example.com`;
  const session = await http.iora.session(email, `org-${people}`);
  const key = await http.iora.output<{ id: string; key: string }>('keys.create', session, { name: 'a key' });
  return { email, session, token: await http.iora.token(email, `org-${people}`), ...key };
}

/**
 * Begins a POST whose last byte is held back until the server has looked at the head, which it says with 100 Continue. Answers how
 * to send that byte and read the status.
 */
async function begin(path: string, credential: string, body: object) {
  const whole = JSON.stringify(body);
  const { hostname, port, host } = new URL(http.url);
  const socket = connect({ host: hostname, port: Number(port) });
  await once(socket, 'connect');
  const head = [
    `POST ${path} HTTP/1.1`,
    `Host: ${host}`,
    'Connection: close',
    'Content-Type: application/json',
    'Accept: application/json, text/event-stream',
    `Authorization: Bearer ${credential}`,
    `Content-Length: ${whole.length}`,
    'Expect: 100-continue',
  ];
  socket.write(`${head.join('\r\n')}\r\n\r\n${whole.slice(0, -1)}`);
  const [first] = await once(socket, 'data');
  assert.match(String(first), /^HTTP\/1.1 100 Continue\r\n\r\n$/);
  return async () => {
    socket.write(whole.slice(-1));
    return Number((await text(socket)).split(' ')[1]);
  };
}

const mcpCall = {
  jsonrpc: '2.0',
  id: 1,
  method: 'tools/call',
  params: { name: 'get_price', arguments: { symbol: 'BTC' } },
};

test('a key that is revoked while the body of its call arrives is refused, over HTTP and MCP', async () => {
  const { id, key, session } = await person();
  const held = [await begin('/tools/get_price', key, { symbol: 'BTC' }), await begin('/mcp', key, mcpCall)];
  const untouched = await begin('/tools/get_price', (await person()).key, { symbol: 'BTC' });
  const revoked = await http.iora.output<{ effectiveOn: number; of: number }>('keys.revoke', session, { id });
  assert.deepEqual([revoked.effectiveOn, revoked.of], [1, 1]);
  for (const finish of held) assert.equal(await finish(), 401);
  assert.equal(await untouched(), 200, 'another key is not held up by it');
});

test('a person who is suspended while the body arrives makes no key any more', async () => {
  const { token, session } = await person();
  const held = await begin('/user/api-keys', token, { name: 'late' });
  await http.iora.sql('UPDATE organizations SET suspended_at = now() WHERE id = $1', [session.orgId]);
  const heard = http.iora.app.rightsHeard();
  await http.iora.sql(`SELECT pg_notify('iora_invalidate', $1)`, [
    JSON.stringify({ id: crypto.randomUUID(), tags: [`owner:${session.orgId}`], epochs: {} }),
  ]);
  await until(() => http.iora.app.rightsHeard() > heard, 'the news is heard');
  assert.equal(await held(), 401);
});
