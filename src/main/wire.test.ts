import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { startApplication, until } from '../../test/support/application.ts';
import { type TestCluster, type TestDatabase, testCluster } from '../../test/support/postgres.ts';
import { startTcpProxy, throughProxy } from '../../test/support/tcp-proxy.ts';

let cluster: TestCluster;
let database: TestDatabase;
before(async () => {
  cluster = await testCluster();
  database = await cluster.database();
});
after(() => cluster.stop());

test('closing leaves nothing behind: rows written, uses counted, goodbye said, connections closed', async () => {
  const iora = await startApplication(database, { settings: { USAGE_FLUSH_INTERVAL_MS: '1000' } });
  const session = await iora.session('alice@example.com');
  const { key } = await iora.output<{ key: string }>('keys.create', session, { name: 'x' });
  assert.ok((await iora.call('market.get_price', await iora.bearer(key), { symbol: 'BTC' })).ok);
  const left = async (text: string) => (await observer.sql(text))[0].count;
  const observer = await startApplication(database, { serves: false });
  assert.equal(await iora.close(), 0);
  assert.equal(await left('SELECT count(*)::int FROM usage_logs'), 1);
  assert.equal(await left('SELECT sum(usage_count)::int AS count FROM api_keys'), 1);
  assert.equal(await left('SELECT count(*)::int FROM instances'), 0);
  await assert.rejects(iora.app.database.call(async () => undefined));
  assert.equal(iora.app.listening(), false);
  await observer.close();
});

test('closing in front of a silent database ends with its deadline and says what was lost', async () => {
  const { hostname, port } = new URL(database.apiUrl);
  const proxy = await startTcpProxy({ host: hostname, port: Number(port) });
  const url = throughProxy(database.apiUrl, proxy);
  const iora = await startApplication(database, { serviceUrl: url, directUrl: url });
  const session = await iora.session('bob@example.com');
  const price = () => iora.call('market.get_price', session, { symbol: 'BTC' });
  await price();
  await until(() => iora.app.usage().pending === 0, 'the first row is written');
  proxy.set('blackhole');
  for (let call = 0; call < 3; call += 1) assert.ok((await price()).ok, 'what needs no database is still answered');
  let givenUp = 0;
  iora.app.database
    .call(async () => undefined)
    .catch(() => {
      givenUp += 1;
    });
  assert.equal(await iora.close(200), 3);
  assert.equal(givenUp, 0, 'no statement was waited for');
  assert.equal(iora.log.named('usage rows could not be written before the deadline').length, 1);
  proxy.set('reset');
  await proxy.close();
});
