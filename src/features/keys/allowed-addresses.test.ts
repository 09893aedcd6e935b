import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { startApplication, type TestApplication } from '../../../test/support/application.ts';
import { type TestCluster, testCluster } from '../../../test/support/postgres.ts';
import { startTestServer, type TestServer } from '../../../test/support/server.ts';
import type { Principal } from '../../kernel/context.ts';
import type { KeyRecord } from './key-record.ts';

let cluster: TestCluster;
let iora: TestApplication;
before(async () => {
  cluster = await testCluster();
  iora = await startApplication(await cluster.database());
});
after(async () => {
  await iora.close();
  await cluster.stop();
});

let people = 0;
async function person(): Promise<Principal> {
  people += 1;
  return iora.session(`somewhere-${people}@example.com`);
}

const create = (owner: Principal, input: Record<string, unknown>) =>
  iora.output<{ id: string; key: string }>('keys.create', owner, { name: 'a key', ...input });
const code = async (name: string, principal: Principal, input: unknown) => {
  const outcome = await iora.call(name, principal, input);
  return outcome.ok ? 'ok' : outcome.error.code;
};

test('networks are kept and shown in one form, replaced and taken away', async () => {
  const alice = await person();
  const given = [
    '192.0.2.0/24',
    '198.51.100.7',
    '2001:DB8::/32',
    '::1.2.3.4',
    '::ffff:203.0.113.0/120',
    '64:ff9b:1::1',
  ];
  const kept = [
    '192.0.2.0/24',
    '198.51.100.7/32',
    '2001:db8::/32',
    '::1.2.3.4/128',
    '203.0.113.0/24',
    '64:ff9b:1::1/128',
  ];
  const { id, key } = await create(alice, { allowedCidrs: given });
  const shown = await iora.output<KeyRecord>('keys.get', alice, { id });
  assert.deepEqual(shown.allowedCidrs, kept, 'in the words of the database, which are ours');
  const caller = await iora.bearer(key);
  assert.deepEqual((await iora.output('keys.current', caller))['allowedCidrs'], kept);
  const update = (allowedCidrs: string[]) => iora.output<KeyRecord>('keys.update', alice, { id, allowedCidrs });
  assert.deepEqual((await update(['10.0.0.0/8'])).allowedCidrs, ['10.0.0.0/8']);
  await assert.rejects(iora.bearer(key), { code: 'forbidden' }, 'at once, also where the key is remembered');
  assert.deepEqual((await update([])).allowedCidrs, []);
  await iora.bearer(key);
  const [row] = await iora.sql(
    `SELECT changes->'before'->'allowedCidrs' AS before, changes->'after'->'allowedCidrs' AS after FROM audit_logs
     WHERE resource_id = $1 ORDER BY created_at DESC LIMIT 1`,
    [id],
  );
  assert.deepEqual(row, { before: ['10.0.0.0/8'], after: [] });
});

test('what is no list of networks is refused, and one with host bits is told which network was meant', async () => {
  const alice = await person();
  const lists = [
    ['x'],
    [''],
    ['10.0.0.0/33'],
    ['10.0.0.0/8', '10.0.0.0/8'],
    ['10.1.1.1', '10.1.1.1/32'],
    'x',
    [1],
    null,
  ];
  const tooMany = Array.from({ length: 21 }, (_, index) => `10.0.${index}.0/24`);
  for (const allowedCidrs of [...lists, tooMany]) {
    assert.equal(await code('keys.create', alice, { name: 'x', allowedCidrs }), 'invalid_input', String(allowedCidrs));
  }
  const outcome = await iora.call('keys.create', alice, { name: 'x', allowedCidrs: ['10.0.0.0/8', '10.1.2.3/16'] });
  assert.ok(!outcome.ok);
  assert.deepEqual(outcome.error.details['issues'], [
    { path: 'allowedCidrs.1', message: 'has bits set beyond its prefix; the network is 10.1.0.0/16' },
  ]);
});

test('a key with a list makes only keys within it, and widens no list, its own included', async () => {
  const alice = await person();
  const permissions = ['keys:write', 'tools:read'];
  const parent = await create(alice, { permissions, allowedCidrs: ['192.0.2.0/24', '2001:db8::/32'] });
  const open = await create(alice, {});
  const key = await iora.bearer(parent.key);
  for (const allowedCidrs of [undefined, [], ['0.0.0.0/0'], ['192.0.2.0/25', '10.0.0.1'], ['::/0']]) {
    assert.equal(await code('keys.create', key, { name: 'x', allowedCidrs }), 'forbidden', String(allowedCidrs));
    if (allowedCidrs === undefined) continue;
    assert.equal(await code('keys.update', key, { id: parent.id, allowedCidrs }), 'forbidden', String(allowedCidrs));
  }
  assert.equal(await code('keys.create', key, { name: 'x', allowedCidrs: ['192.0.2.7', '2001:db8:1::/48'] }), 'ok');
  assert.equal(await code('keys.update', key, { id: parent.id, allowedCidrs: ['192.0.2.0/25'] }), 'ok');
  const free = await iora.bearer((await create(alice, { permissions })).key);
  assert.equal(await code('keys.update', free, { id: open.id, allowedCidrs: ['0.0.0.0/0'] }), 'ok');
});

async function ask(server: TestServer, key: string, forwardedFor?: string) {
  const headers = {
    authorization: `Bearer ${key}`,
    ...(forwardedFor === undefined ? {} : { 'x-forwarded-for': forwardedFor }),
  };
  const response = await fetch(`${server.baseUrl}/user/api-keys/current`, { headers });
  return { status: response.status, body: (await response.json()) as { code?: string; detail?: string } };
}

test('over HTTP the address counts that the connection comes from, whatever it claims', async () => {
  const server = await startTestServer();
  try {
    const inside = await server.createKey({ body: { allowedCidrs: ['127.0.0.0/8'] } });
    const outside = await server.createKey({ body: { allowedCidrs: ['192.0.2.0/24'] } });
    assert.equal((await ask(server, inside)).status, 200);
    for (const forwarded of [undefined, '192.0.2.7', '192.0.2.7, 127.0.0.1', '::ffff:192.0.2.7']) {
      const { status, body } = await ask(server, outside, forwarded);
      assert.deepEqual([status, body.code], [403, 'forbidden'], forwarded ?? 'nothing forwarded');
      assert.match(body.detail ?? '', /127\.0\.0\.1/, 'the refusal names the address');
    }
  } finally {
    await server.stop();
  }
});

test('behind a trusted proxy the address counts that the proxy adds, and not what a caller put before it', async () => {
  const server = await startTestServer({ TRUSTED_PROXIES: '127.0.0.1' });
  try {
    const key = await server.createKey({ body: { allowedCidrs: ['192.0.2.0/24', '2001:db8::/32'] } });
    for (const forwarded of ['192.0.2.7', '198.51.100.1, 192.0.2.7', '2001:db8::5', '::ffff:192.0.2.7']) {
      assert.equal((await ask(server, key, forwarded)).status, 200, forwarded);
    }
    for (const [forwarded, address] of [
      ['198.51.100.1', '198.51.100.1'],
      ['192.0.2.7, 198.51.100.1', '198.51.100.1'],
      ['2001:db9::5', '2001:db9::5'],
      ['192.0.2.7, nonsense', '127.0.0.1'],
    ] as const) {
      const { status, body } = await ask(server, key, forwarded);
      assert.equal(status, 403);
      assert.ok(body.detail?.includes(address), `${forwarded}: ${body.detail}`);
    }
  } finally {
    await server.stop();
  }
});
