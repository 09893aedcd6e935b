// For tests of this folder: the transport behind a bare HTTP server, with small operations and the real `invoke` over
// admission, meter and audit that live in memory.
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { z } from 'zod';
import type { Permission, Principal } from '../../kernel/context.ts';
import { AppError, unavailable } from '../../kernel/errors.ts';
import { createInvoke, type Invoke, type LimitState, type UsageEvent } from '../../kernel/invoke.ts';
import { defineOperation, type Operation } from '../../kernel/operation.ts';
import type { Database } from '../../platform/postgres.ts';
import { createMcpTransport } from './mcp-transport.ts';

export const getPrice = defineOperation({
  name: 'market.get_price',
  names: { tool: 'get_price' },
  route: { method: 'POST', path: '/tools/get_price' },
  summary: 'The price of a symbol.',
  permission: 'tools:read',
  audience: 'tenant',
  transports: ['http', 'mcp'],
  cost: 1,
  input: z.object({
    symbol: z
      .string()
      .regex(/^[A-Za-z0-9]{1,32}$/)
      .toUpperCase(),
    currency: z.string().default('USD'),
  }),
  output: z.object({ symbol: z.string(), currency: z.string(), price: z.string() }),
  answer: 'json',
  idempotent: true,
  readOnly: true,
  example: { symbol: 'BTC' },
  precheck: ({ symbol }) => {
    if (symbol === 'NOSUCH') throw new AppError('unknown_symbol', undefined, { details: { nearest: ['BTC'] } });
  },
  run: async (_, { symbol, currency }) => {
    if (symbol === 'BROKEN') throw new Error('the password is swordfish');
    if (symbol === 'AWAY') throw unavailable('The markets cannot answer at the moment.');
    return { symbol, currency, price: '64000.12' };
  },
});

const listSymbols = defineOperation({
  name: 'market.list_symbols',
  names: { tool: 'list_symbols' },
  route: { method: 'POST', path: '/tools/list_symbols' },
  summary: 'What can be asked',
  permission: 'tools:read',
  audience: 'tenant',
  transports: ['http', 'mcp'],
  cost: 0,
  input: z.object({}),
  output: z.object({ symbols: z.array(z.string()) }),
  answer: 'json',
  idempotent: true,
  readOnly: true,
  example: {},
  run: async () => ({ symbols: ['BTC', 'ETH'] }),
});

const getUsage = defineOperation({
  name: 'usage.get',
  route: { method: 'GET', path: '/user/usage' },
  summary: 'Use so far',
  permission: 'usage:read',
  audience: 'tenant',
  transports: ['http', 'mcp'],
  cost: 0,
  input: z.object({}),
  output: z.object({ today: z.number() }),
  answer: 'json',
  idempotent: true,
  readOnly: true,
  example: {},
  run: async () => ({ today: 3 }),
});

const leaveOrganization = defineOperation({
  name: 'organizations.leave',
  route: { method: 'DELETE', path: '/user/organizations/current' },
  summary: 'Leaves the organization',
  permission: null,
  callers: ['session'],
  audience: 'tenant',
  transports: ['http', 'mcp'],
  cost: 2,
  input: z.object({}),
  output: z.object({ left: z.boolean() }),
  answer: 'json',
  idempotent: false,
  readOnly: false,
  audit: { action: 'organization.left', resourceType: 'organization' },
  example: {},
  run: async () => ({ left: true }),
});

const createKey = defineOperation({
  name: 'keys.create',
  route: { method: 'POST', path: '/user/api-keys' },
  summary: 'Creates an API key',
  permission: null,
  audience: 'tenant',
  transports: ['http', 'cli'],
  cost: 0,
  input: z.object({}),
  output: z.object({ key: z.string() }),
  answer: 'json',
  idempotent: false,
  readOnly: true,
  example: {},
  run: async () => ({ key: 'secret' }),
});

const operations: readonly Operation[] = [getPrice, listSymbols, getUsage, leaveOrganization, createKey];

export function principalWith(kind: Principal['kind'], permissions: readonly Permission[]): Principal {
  return {
    kind,
    ownerId: 'owner',
    userId: 'user',
    orgId: null,
    role: null,
    permissions: new Set(permissions),
    tier: 'free',
    limits: { requestsPerMinute: null, requestsPerMonth: null, maxApiKeys: 5 },
    key: null,
    service: null,
    scopes: null,
  };
}

export interface Endpoint {
  readonly url: string;
  readonly usage: readonly UsageEvent[];
  /** Sends `body` as it is; headers are those of a client of 2025-11-25 unless given. */
  post(body: string, headers?: Record<string, string>): Promise<{ status: number; headers: Headers; text: string }>;
  close(): Promise<void>;
}

/** Headers of a client that accepts what the protocol asks it to. */
export const postHeaders = { 'content-type': 'application/json', accept: 'application/json, text/event-stream' };

/** Serves MCP for one caller. `callsAdmitted` is how many metered calls the limiter lets through. */
export async function startEndpoint(
  options: { principal?: Principal; callsAdmitted?: number; invoke?: Invoke } = {},
): Promise<Endpoint> {
  const principal = options.principal ?? principalWith('api_key', ['tools:read']);
  const usage: UsageEvent[] = [];
  const transport = createMcpTransport({ operations, version: '1.2.3', docsUrl: 'https://iora.example' });
  const invoke = options.invoke ?? createInvokeInMemory(options.callsAdmitted ?? Number.POSITIVE_INFINITY, usage);
  let requests = 0;

  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    requests += 1;
    response.setHeader('x-request-id', `request-${requests}`);
    const call = {
      principal,
      requestId: `request-${requests}`,
      transport: 'mcp' as const,
      ipAddress: null,
      userAgent: null,
      signal: null,
    };
    await transport.handle(request, response, parseJson(Buffer.concat(chunks).toString()), { call, invoke });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/mcp`;

  return {
    url,
    usage,
    async post(body, headers = {}) {
      const answer = await fetch(url, { method: 'POST', headers: { ...postHeaders, ...headers }, body });
      return { status: answer.status, headers: answer.headers, text: await answer.text() };
    },
    async close() {
      await new Promise((resolve) => {
        server.close(resolve);
        server.closeAllConnections();
      });
      await transport.close();
    },
  };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

const LIMIT = 60;

function createInvokeInMemory(callsAdmitted: number, usage: UsageEvent[]): Invoke {
  let calls = 0;
  return createInvoke({
    database: {} as Database,
    admission: {
      admit() {
        calls += 1;
        const remaining = Math.max(0, LIMIT - calls);
        const limits: LimitState[] = [
          { policy: 'minute', limit: LIMIT, remaining, windowSeconds: 60, resetSeconds: 7 },
        ];
        if (calls <= callsAdmitted) return { admitted: true, limits };
        return {
          admitted: false,
          limits,
          error: new AppError('rate_limited', undefined, { details: { retryAfterSeconds: 1.5 } }),
        };
      },
      refund() {},
      refuseUnmetered: () => null,
    },
    meter: { hasRoom: () => true, record: (event) => void usage.push(event) },
    audit: { append: async () => {}, appendAlone: async () => {} },
    wallClockMs: () => 0,
  });
}
