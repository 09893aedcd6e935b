import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { AddressInfo, Socket } from 'node:net';
import { connect } from 'node:net';
import { type TestContext, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import {
  BODY_BYTES_MAX,
  CONNECTIONS_MAX,
  DRAIN_BYTES_MAX,
  HEADER_BYTES_MAX,
  HEADERS_TIMEOUT_MS,
  KEEP_ALIVE_TIMEOUT_MS,
  REQUEST_TIMEOUT_MS,
} from './http-limits.ts';
import { CREDENTIAL, openMcp, type TestServerOptions, testServer } from './test-server.ts';

// What only a real connection shows: requests that never become one, bodies beyond all bounds, and closing.

async function listening(context: TestContext, options?: TestServerOptions) {
  const server = testServer(options);
  await server.app.listen({ host: '127.0.0.1', port: 0 });
  context.after(() => server.app.close());
  const { port } = server.app.server.address() as AddressInfo;
  return { ...server, port };
}

function open(port: number, context: TestContext): Socket {
  const socket = connect(port, '127.0.0.1');
  context.after(() => socket.destroy());
  // A reset ends the reading, and then the assertion on what was read tells more.
  socket.on('error', () => socket.destroy());
  return socket;
}

const POLLS_MAX = 2_000;

/** Waits for what no event tells: that bytes arrived, that the server no longer listens. */
async function until(condition: () => boolean): Promise<void> {
  for (let polls = 0; polls < POLLS_MAX; polls++) {
    if (condition()) return;
    await setTimeout(2);
  }
  assert.fail('waited in vain');
}

/** All that comes until the server ends the connection. */
async function readAll(socket: Socket): Promise<string> {
  let text = '';
  socket.setEncoding('utf8').on('data', (chunk) => {
    text += chunk;
  });
  await once(socket, 'close');
  return text;
}

function parse(text: string) {
  const [head = '', body = ''] = text.split('\r\n\r\n');
  const [status = '', ...lines] = head.split('\r\n');
  const headers = Object.fromEntries(lines.map((line) => line.split(/: (.*)/, 2).map((part) => part.toLowerCase())));
  return { status: Number(status.split(' ')[1]), headers, body };
}

function assertProblem(text: string, status: number, code: string): void {
  const answer = parse(text);
  assert.equal(answer.status, status, text);
  assert.equal(answer.headers['content-type'], 'application/problem+json');
  const problem = JSON.parse(answer.body);
  assert.equal(problem.code, code);
  assert.equal(problem.requestId, answer.headers['x-request-id']);
}

const request = (body: string, headers = '') =>
  `POST /tools/get_price HTTP/1.1\r\nHost: x\r\nAuthorization: ${CREDENTIAL}\r\nContent-Type: application/json\r\n${headers}Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;

const unreadable: [what: string, text: string, status: number, code: string][] = [
  ['no HTTP at all', 'hello\r\n\r\n', 400, 'malformed_request'],
  [
    'a broken chunk',
    request('', 'Transfer-Encoding: chunked\r\n').replace('Content-Length: 0\r\n', '').concat('xyz\r\n'),
    400,
    'malformed_request',
  ],
  [
    'two lengths',
    'GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n',
    400,
    'malformed_request',
  ],
  ['no Host', 'GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n', 400, 'malformed_request'],
  [
    'an Expect that cannot be met',
    'GET /healthz HTTP/1.1\r\nHost: x\r\nExpect: miracles\r\n\r\n',
    400,
    'malformed_request',
  ],
  [
    'headers beyond the bound',
    `GET / HTTP/1.1\r\nHost: x\r\nX-Long: ${'a'.repeat(HEADER_BYTES_MAX)}\r\n\r\n`,
    431,
    'headers_too_large',
  ],
  ['CONNECT', 'CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n', 405, 'method_not_allowed'],
];

for (const [what, text, status, code] of unreadable) {
  test(`${status} ${code}: ${what}`, async (context) => {
    const { port, lines } = await listening(context);
    const socket = open(port, context);
    socket.write(text);
    assertProblem(await readAll(socket), status, code);
    assert.deepEqual(
      lines.map((line) => [line.level, line['status'], line['code']]),
      [['info', status, code]],
    );
  });
}

test('408: a request that does not arrive in time', async (context) => {
  const { app, port, lines } = await listening(context);
  app.server.headersTimeout = 1;
  app.server.requestTimeout = 1;
  // The first stops among the headers, the second within the body.
  for (const start of ['POST /tools/get_price HTTP/1.1\r\nHost: x\r\n', request('{"symbol":"BTC"}').slice(0, -3)]) {
    const socket = open(port, context);
    socket.write(start);
    assertProblem(await readAll(socket), 408, 'request_timeout');
  }
  assert.deepEqual(
    lines.map((line) => [line['status'], line['operation'], line['tenant']]),
    [
      [408, undefined, undefined],
      [408, 'market.get_price', 'owner-1'],
    ],
  );
});

test('HTTP/1.0 without a Host is answered', async (context) => {
  const { port } = await listening(context);
  const socket = open(port, context);
  socket.write('GET /healthz HTTP/1.0\r\n\r\n');
  assert.equal(parse(await readAll(socket)).status, 200);
});

test('garbage behind a running request does not answer it', async (context) => {
  const entered = Promise.withResolvers<void>();
  const { port } = await listening(context, {
    invoke: () => {
      entered.resolve();
      return new Promise(() => {});
    },
  });
  const socket = open(port, context);
  socket.write(request('{"symbol":"BTC"}'));
  await entered.promise;
  socket.write('garbage\r\n\r\n');
  assert.equal(await readAll(socket), '');
});

test('413: a body too large is answered, and the connection goes on when all of it was taken', async (context) => {
  const { port } = await listening(context);
  const url = `http://127.0.0.1:${port}/tools/get_price`;
  const headers = { authorization: CREDENTIAL, 'content-type': 'application/json' };
  for (const bytes of [BODY_BYTES_MAX + 1, DRAIN_BYTES_MAX]) {
    const response = await fetch(url, { method: 'POST', headers, body: 'x'.repeat(bytes) });
    assert.equal(response.status, 413);
    assert.equal(response.headers.get('connection'), 'keep-alive');
    assert.equal(((await response.json()) as { code: string }).code, 'payload_too_large');
  }
});

test('413: a body that announces to be endless ends the connection at once', async (context) => {
  const { port } = await listening(context);
  const socket = open(port, context);
  socket.write(request('').replace('Content-Length: 0', `Content-Length: ${DRAIN_BYTES_MAX + 1}`));
  const text = await readAll(socket);
  assertProblem(text, 413, 'payload_too_large');
  assert.equal(parse(text).headers['connection'], 'close');
});

test('413: a body that is endless without saying so is read no further than its bound', async (context) => {
  const { port } = await listening(context);
  const socket = open(port, context);
  socket.write(request('').replace('Content-Length: 0', 'Transfer-Encoding: chunked'));
  const chunk = `10000\r\n${'x'.repeat(0x10000)}\r\n`;
  for (let sent = 0; sent <= DRAIN_BYTES_MAX; sent += 0x10000) socket.write(chunk);
  assertProblem(await readAll(socket), 413, 'payload_too_large');
});

test('a caller who leaves in the middle of his body harms nobody', async (context) => {
  const { port, app, lines } = await listening(context);
  const arrived = once(app.server, 'request');
  const socket = open(port, context);
  socket.write(request('{"symbol":"BTC"}').slice(0, -3));
  await arrived;
  socket.destroy();
  const response = await fetch(`http://127.0.0.1:${port}/healthz`);
  assert.equal(response.status, 200);
  await until(() => lines.length === 2);
  assert.deepEqual(lines.map((line) => [line.level, line['route'], line['code']]).sort(), [
    ['info', '/healthz', 'ok'],
    ['info', '/tools/get_price', 'malformed_request'],
  ]);
});

test('closing: a running request gets its answer, the connection ends with it, close waits for it', async (context) => {
  const entered = Promise.withResolvers<void>();
  const finish = Promise.withResolvers<void>();
  const { app, port } = await listening(context, {
    invoke: async () => {
      entered.resolve();
      await finish.promise;
      return { ok: true, status: 200, output: { done: true }, limits: [] };
    },
  });
  const busy = open(port, context);
  busy.write(request('{"symbol":"BTC"}'));
  await entered.promise;
  let closed = false;
  const closing = app.close().then(() => {
    closed = true;
  });
  // Only once the server is closing may the request end.
  await until(() => !app.server.listening);
  assert.equal(closed, false);
  finish.resolve();
  const answer = parse(await readAll(busy));
  assert.equal(answer.status, 200);
  assert.equal(answer.headers['connection'], 'close');
  assert.equal(answer.body, '{"done":true}');
  await closing;
});

test('closing: 503 for a request that arrives on a connection in use; unused connections are ended', async (context) => {
  const { app, port } = await listening(context);
  const unused = open(port, context);
  await once(app.server, 'connection');
  const accepted = once(app.server, 'connection') as Promise<[Socket]>;
  const late = open(port, context);
  const text = request('{"symbol":"BTC"}');
  late.write(text.slice(0, 30));
  const [peer] = await accepted;
  await until(() => peer.bytesRead > 0);
  const closing = app.close();
  await until(() => !app.server.listening);
  late.write(text.slice(30));
  const answer = await readAll(late);
  assertProblem(answer, 503, 'unavailable');
  assert.equal(parse(answer).headers['connection'], 'close');
  assert.equal(parse(answer).headers['retry-after'], '2');
  await closing;
  assert.ok(unused.readableEnded || unused.destroyed);
});

test('closing: a connection that becomes idle meanwhile is not waited for', async (context) => {
  const entered = Promise.withResolvers<void>();
  const finish = Promise.withResolvers<void>();
  const { app, port } = await listening(context, {
    mcp: {
      ...openMcp,
      async handle(_request, response) {
        entered.resolve();
        await finish.promise;
        response.writeHead(200, { 'content-length': 2 }).end('{}');
      },
    },
  });
  const socket = open(port, context);
  socket.write(request('{}').replace('/tools/get_price', '/mcp'));
  await entered.promise;
  const closing = app.close();
  await until(() => !app.server.listening);
  finish.resolve();
  assert.equal(parse(await readAll(socket)).status, 200);
  await closing;
});

test('the bounds are set on the server', () => {
  const { server } = testServer().app;
  assert.equal(server.maxConnections, CONNECTIONS_MAX);
  assert.equal(server.headersTimeout, HEADERS_TIMEOUT_MS);
  assert.equal(server.requestTimeout, REQUEST_TIMEOUT_MS);
  assert.equal(server.keepAliveTimeout, KEEP_ALIVE_TIMEOUT_MS);
});

test('500: a handler that throws past everything else tells nothing', async () => {
  const { app, lines } = testServer();
  app.get('/thrown', () => {
    throw new Error('inner words');
  });
  const answer = await app.inject({ method: 'GET', url: '/thrown' });
  assert.equal(answer.statusCode, 500);
  assert.equal(answer.json().code, 'internal');
  assert.doesNotMatch(answer.body, /inner words/);
  assert.equal(lines[0]?.level, 'error');
});
