import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { cleanEnvironment, startServerProcess } from '../test/support/server-process.ts';

/** `npm run demo`: the main job from an empty folder to a revoked key. Every line says what has just happened. */

const dataDir = await mkdtemp(join(tmpdir(), 'iora-demo-'));
const settings = { IORA_DATA_DIR: dataDir, LOG_LEVEL: 'warn' };
const startedAt = performance.now();

function say(step: string, detail: string): void {
  const seconds = ((performance.now() - startedAt) / 1_000).toFixed(1).padStart(5);
  process.stdout.write(`${seconds} s  ${step.padEnd(10)} ${detail}\n`);
}

function expect(condition: boolean, what: string): asserts condition {
  if (!condition) throw new Error(`the demo expected ${what}`);
}

interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: Record<string, unknown>;
  readonly ms: number;
}

async function request(url: string, credential: string, method: string, path: string, body?: unknown): Promise<Answer> {
  const began = performance.now();
  const response = await fetch(`${url}${path}`, {
    method,
    headers: {
      authorization: `Bearer ${credential}`,
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const text = await response.text();
  return {
    status: response.status,
    headers: response.headers,
    body: JSON.parse(text) as Record<string, unknown>,
    ms: performance.now() - began,
  };
}

async function signIn(): Promise<string> {
  const { stdout } = await promisify(execFile)(
    process.execPath,
    ['src/main/cli.ts', 'auth', 'token', '--user', 'ada@example.com', '--org', 'acme'],
    { env: cleanEnvironment(settings) },
  );
  return stdout.trim();
}

/** Lists the tools and calls one, as an agent does: with the older handshake, or `auto` for the newest the server offers. */
async function askOverMcp(key: string, mode?: 'auto') {
  const client = new Client(
    { name: 'iora-demo', version: '1.0.0' },
    mode === undefined ? {} : { versionNegotiation: { mode } },
  );
  await client.connect(
    new StreamableHTTPClientTransport(new URL(`${server.url}/mcp`), {
      requestInit: { headers: { authorization: `Bearer ${key}` } },
    }),
  );
  const revision = client.getNegotiatedProtocolVersion();
  const { tools } = await client.listTools();
  const called = await client.callTool({ name: 'get_price', arguments: price });
  await client.close();
  const structured = called.structuredContent as Record<string, unknown> | undefined;
  expect(structured !== undefined && revision !== undefined, 'an answer over MCP');
  return { tools: tools.map((tool) => tool.name), structured, revision };
}

const milliseconds = (ms: number) => `${ms.toFixed(1)} ms`;
const price = { symbol: 'BTC', currency: 'USD' };

let server = await startServerProcess(settings);
try {
  say('start', `server and PostgreSQL 18 on an empty folder, taking traffic after ${milliseconds(server.startedInMs)}`);

  const session = await signIn();
  say('sign in', 'ada@example.com of the organization acme has a session');

  const created = await request(server.url, session, 'POST', '/user/api-keys', { name: 'demo' });
  expect(created.status === 201, 'the key to be created');
  const key = String(created.body['key']);
  const id = String(created.body['id']);
  say(
    'key',
    `${created.body['keyPrefix']}… with ${(created.body['permissions'] as string[]).join(', ')} created in ${milliseconds(created.ms)}`,
  );

  const first = await request(server.url, key, 'POST', '/tools/get_price', price);
  expect(first.status === 200 && first.body['cache'] === 'miss', 'a first price from the market');
  const sources = (first.body['sources'] as { name: string }[]).map((source) => source.name);
  say(
    'http',
    `BTC is ${first.body['price']} USD, agreed by ${sources.length} simulated sources (cache ${first.body['cache']}, ${milliseconds(first.ms)})`,
  );

  const second = await request(server.url, key, 'POST', '/tools/get_price', price);
  expect(second.body['cache'] === 'hit', 'the second call to be served from the cache');
  say(
    'cache',
    `the same question again: cache ${second.body['cache']}, ${milliseconds(second.ms)}; RateLimit: ${second.headers.get('ratelimit')}`,
  );

  for (const { tools, structured, revision } of [await askOverMcp(key), await askOverMcp(key, 'auto')]) {
    expect(structured['price'] === first.body['price'], 'the same price over MCP');
    say(
      'mcp',
      `an agent that speaks ${revision} sees the tools ${tools.join(', ')} and gets ${structured['price']} USD`,
    );
  }

  // Two over HTTP, two over MCP.
  let admitted = 4;
  let refused: Answer | undefined;
  while (refused === undefined && admitted <= 1_000) {
    const answer = await request(server.url, key, 'POST', '/tools/get_price', price);
    if (answer.status === 429) refused = answer;
    else admitted += 1;
  }
  expect(refused !== undefined, 'the rate limit to be reached');
  say(
    'limit',
    `call ${admitted + 1} within a minute: ${refused.status} ${refused.body['code']}, try again in ${refused.headers.get('retry-after')} s`,
  );

  const before = await request(server.url, session, 'GET', '/user/usage');
  await server.stop('SIGKILL');
  say('kill', 'the server is killed with SIGKILL');
  server = await startServerProcess(settings);
  say('restart', `a new server on the same folder takes traffic after ${milliseconds(server.startedInMs)}`);

  const after = await request(server.url, key, 'POST', '/tools/get_price', price);
  expect(after.status === 200, 'the key to survive the kill');
  say('key', `the key still works: BTC is ${after.body['price']} USD`);

  const revoked = await request(server.url, session, 'DELETE', `/user/api-keys/${id}`);
  expect(revoked.status === 200, 'the key to be revoked');
  say(
    'revoke',
    `in effect on ${revoked.body['effectiveOn']} of ${revoked.body['of']} instances after ${revoked.body['ms']} ms`,
  );
  const denied = await request(server.url, key, 'POST', '/tools/get_price', price);
  expect(denied.status === 401, 'the revoked key to be refused');
  say('refused', `the key now gets ${denied.status} ${denied.body['code']}`);

  const usage = await request(server.url, session, 'GET', '/user/usage');
  const month = usage.body['month'] as { calls: number; cost: number; errors: number };
  const remaining = usage.body['remaining'] as { month: number };
  expect(month.cost === admitted + 1, `usage of exactly ${admitted + 1} answered calls, not ${month.cost}`);
  const kept = (before.body['month'] as { cost: number }).cost;
  say(
    'usage',
    `${month.cost} calls were answered and are on the books, ${kept} of them from before the kill; ${month.errors} was refused and cost nothing`,
  );
  say('done', `${remaining.month} calls are left this month; the demo removes its folder`);
} finally {
  await server.stop();
  await rm(dataDir, { recursive: true, force: true });
}
