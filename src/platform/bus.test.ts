import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import { until } from '../../test/support/application.ts';
import { type TestCluster, type TestDatabase, testCluster, withClient } from '../../test/support/postgres.ts';
import { startTcpProxy, type TcpProxy, throughProxy } from '../../test/support/tcp-proxy.ts';
import { type Bus, openBus } from './bus.ts';
import { parseConnection } from './connection.ts';

let cluster: TestCluster;
let database: TestDatabase;
let proxy: TcpProxy;
before(async () => {
  cluster = await testCluster();
  database = await cluster.database();
  const { hostname, port } = new URL(database.apiUrl);
  proxy = await startTcpProxy({ host: hostname, port: Number(port) });
});
after(async () => {
  await proxy.close();
  await cluster.stop();
});

/** A bus that notes what it hears. */
function listen(url = database.apiUrl) {
  const heard: string[] = [];
  const seen = { connections: 0, errors: [] as Error[] };
  const applicationName = `bus ${randomUUID()}`;
  const bus = openBus({
    connection: parseConnection(url),
    channels: { one: (payload) => heard.push(`one ${payload}`), 'two "2"': (payload) => heard.push(`two ${payload}`) },
    onConnect: () => {
      seen.connections += 1;
    },
    onError: (error) => seen.errors.push(error),
    connectionTimeoutMs: 2_000,
    applicationName,
  });
  return { bus, heard, seen, applicationName };
}

const asSuperuser = (text: string, values: unknown[] = []) =>
  withClient(database.superuserUrl, (client) => client.query(text, values));
const send = (channel: string, payload: string) => asSuperuser('SELECT pg_notify($1, $2)', [channel, payload]);
const backends = async (name: string) =>
  (await asSuperuser('SELECT pid FROM pg_stat_activity WHERE application_name = $1', [name])).rows.map(
    ({ pid }) => pid,
  );
const listening = (bus: Bus) => until(() => bus.connected, 'the bus listens');

test('messages arrive on their channels, in the order they were committed, rolled back ones never', async () => {
  const { bus, heard } = listen();
  await listening(bus);
  await send('one', 'a');
  await withClient(database.superuserUrl, async (client) => {
    await client.query(
      `BEGIN; SELECT pg_notify('one', 'never'); ROLLBACK; BEGIN; SELECT pg_notify('two "2"', 'b'); SELECT pg_notify('one', ''); COMMIT`,
    );
  });
  await send('other', 'unheard');
  await send('one', 'last');
  await until(() => heard.at(-1) === 'one last', 'the last message arrives');
  assert.deepEqual(heard, ['one a', 'two b', 'one ', 'one last']);
  await bus.close();
});

test('a connection that is ended is made anew, and it is said that something may have been missed', async () => {
  const { bus, heard, seen, applicationName } = listen();
  await listening(bus);
  for (let round = 1; round <= 3; round += 1) {
    await asSuperuser('SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = $1', [
      applicationName,
    ]);
    await until(() => seen.connections === round + 1, 'it is connected again');
    await send('one', `round ${round}`);
    await until(() => heard.at(-1) === `one round ${round}`, 'it hears again');
  }
  assert.ok(seen.errors.length >= 3);
  assert.equal((await backends(applicationName)).length, 1, 'no connection was left behind');
  await bus.close();
  await until(async () => (await backends(applicationName)).length === 0, 'the connection is gone');
});

test('a connection that has gone silent is noticed and replaced', async () => {
  const { bus, heard, seen } = listen(throughProxy(database.apiUrl, proxy));
  await listening(bus);
  proxy.set('blackhole');
  await until(() => !bus.connected, 'the silence is noticed');
  proxy.set('pass');
  await until(() => seen.connections === 2, 'it is connected again');
  await send('one', 'after');
  await until(() => heard.at(-1) === 'one after', 'it hears again');
  await bus.close();
});

test('closing ends at once and for good, whatever the connection is doing', async () => {
  const url = throughProxy(database.apiUrl, proxy);
  // Closed while connecting, while connected, while the server is silent, while it waits to try again.
  const connecting = listen(url);
  await connecting.bus.close();

  const connected = listen(url);
  await listening(connected.bus);
  await connected.bus.close();
  await connected.bus.close();

  const silent = listen(url);
  await listening(silent.bus);
  proxy.set('blackhole');
  await silent.bus.close();
  const unanswered = listen(url);
  await unanswered.bus.close();

  proxy.set('reset');
  const refused = listen(url);
  await until(() => refused.seen.errors.length > 0, 'a try fails');
  await refused.bus.close();

  const { accepted } = proxy;
  proxy.set('pass');
  await send('one', 'into the void');
  for (const { bus, heard } of [connecting, connected, silent, unanswered, refused]) {
    assert.equal(bus.connected, false);
    assert.deepEqual(heard, []);
  }
  assert.equal(proxy.accepted, accepted, 'none came back');
});
