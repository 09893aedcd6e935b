import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { trackConnections } from './connections.ts';

/** More than the buffers of both ends hold, so that some of it waits in the server. */
const ANSWER = Buffer.alloc(32 * 1024 * 1024);

async function answeringServer(context: TestContext) {
  const server = createServer((_request, response) => response.end(ANSWER));
  const connections = trackConnections(server);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  context.after(() => {
    server.close();
    server.closeAllConnections();
  });
  const { port } = server.address() as AddressInfo;
  return { server, connections, port };
}

/** A caller whose request is answered, and the server's end of his connection. */
async function askingCaller(context: TestContext, server: Server, port: number) {
  const accepted = once(server, 'connection') as Promise<[Socket]>;
  const asked = once(server, 'request');
  const caller = connect(port, '127.0.0.1');
  context.after(() => caller.destroy());
  caller.on('error', () => caller.destroy());
  caller.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  const [peer] = await accepted;
  await asked;
  return { caller, peer };
}

test('a caller who leaves his answer unread is cut off at the second look', async (context) => {
  const { server, connections, port } = await answeringServer(context);
  const { peer } = await askingCaller(context, server, port);
  connections.endStalled();
  assert.equal(peer.destroyed, false);
  assert.ok(peer.writableLength > 0);
  connections.endStalled();
  assert.equal(peer.destroyed, true);
});

test('a caller who reads between two looks is left alone, as is one who waits for nothing', async (context) => {
  const { server, connections, port } = await answeringServer(context);
  const { caller, peer } = await askingCaller(context, server, port);
  connections.endStalled();
  caller.resume();
  while (peer.writableLength > 0) await once(caller, 'data');
  connections.endStalled();
  connections.endStalled();
  assert.equal(peer.destroyed, false);
});

test('only connections that have sent nothing are unused', async (context) => {
  const { server, connections, port } = await answeringServer(context);
  const { peer } = await askingCaller(context, server, port);
  const accepted = once(server, 'connection') as Promise<[Socket]>;
  const silent = connect(port, '127.0.0.1');
  context.after(() => silent.destroy());
  const [unused] = await accepted;
  connections.endUnused();
  assert.deepEqual([peer.destroyed, unused.destroyed], [false, true]);
});
