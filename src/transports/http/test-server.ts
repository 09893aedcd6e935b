import { z } from 'zod';
import type { Authenticate, Permission, Principal } from '../../kernel/context.ts';
import type { Endpoint } from '../../kernel/endpoint.ts';
import { AppError } from '../../kernel/errors.ts';
import { createInvoke, type InvokeParts, type LimitState } from '../../kernel/invoke.ts';
import { defineOperation, type Operation, pageInput, pageOf } from '../../kernel/operation.ts';
import type { LogFields } from '../../platform/log.ts';
import { openMetrics } from '../../platform/metrics.ts';
import type { Transaction } from '../../platform/postgres.ts';
import type { HttpParts } from './http-parts.ts';
import { createHttpServer } from './server.ts';

// The server as the tests use it: every part in memory, `invoke` the real one.

/** The credential that the test server accepts. */
export const CREDENTIAL = 'Bearer iora_pk_test_good';
export const authorised = { authorization: CREDENTIAL } as const;

export const minuteLimit: LimitState = {
  policy: 'minute',
  limit: 60,
  remaining: 59,
  windowSeconds: 60,
  resetSeconds: 59.2,
};

export function testPrincipal(
  permissions: readonly Permission[] = ['tools:read', 'keys:read', 'keys:write'],
): Principal {
  return {
    kind: 'api_key',
    ownerId: 'owner-1',
    userId: 'user-1',
    orgId: null,
    role: null,
    permissions: new Set(permissions),
    tier: 'free',
    limits: { requestsPerMinute: 60, requestsPerMonth: 10_000, maxApiKeys: 5 },
    key: {
      id: 'family-1',
      secretId: 'secret-1',
      name: 'test',
      prefix: 'iora_pk_test_good',
      environment: 'test',
      expiresAt: null,
      requestsPerMinute: null,
      requestsPerMonth: null,
      allowedCidrs: [],
      leaked: false,
    },
    service: null,
    scopes: null,
  };
}

/** Operations of every shape a route can have; `seen` receives what `run` was given. */
export function testOperations(seen: (input: unknown, requestId: string) => void = () => {}): Operation[] {
  const common = { audience: 'tenant', transports: ['http', 'mcp', 'cli'], answer: 'json', idempotent: true } as const;
  const item = z.object({ id: z.string(), name: z.string() });
  return [
    defineOperation({
      ...common,
      name: 'market.get_price',
      names: { tool: 'get_price' },
      route: { method: 'POST', path: '/tools/get_price' },
      summary: 'The price of an asset',
      permission: 'tools:read',
      cost: 1,
      readOnly: true,
      input: z.strictObject({
        symbol: z
          .string()
          .regex(/^[A-Za-z]{1,32}$/)
          .describe('Symbol, such as `BTC`'),
        currency: z.enum(['USD', 'EUR']).default('USD'),
      }),
      output: z.object({ symbol: z.string(), price: z.string(), sources: z.array(z.object({ name: z.string() })) }),
      example: { symbol: 'BTC' },
      meterSymbol: ({ symbol }) => symbol,
      async run(context, input) {
        seen(input, context.requestId);
        if (input.symbol === 'UNKNOWN') throw new AppError('unknown_symbol');
        if (input.symbol === 'BROKEN') throw new Error('secret inner words');
        return { symbol: input.symbol, price: '64000.12', sources: [{ name: 'simulated' }] };
      },
    }),
    defineOperation({
      ...common,
      name: 'keys.list',
      route: { method: 'GET', path: '/user/api-keys' },
      summary: 'List keys',
      permission: 'keys:read',
      cost: 0,
      readOnly: true,
      answer: 'page',
      input: z.strictObject(pageInput),
      output: pageOf(item),
      example: { limit: 10 },
      async run(context, input) {
        seen(input, context.requestId);
        return { items: [], nextCursor: null };
      },
    }),
    defineOperation({
      ...common,
      name: 'keys.create',
      route: { method: 'POST', path: '/user/api-keys' },
      summary: 'Create a key',
      permission: 'keys:write',
      transports: ['http'],
      cost: 0,
      status: 201,
      readOnly: false,
      audit: { action: 'created', resourceType: 'api_key' },
      input: z.strictObject({ name: z.string().default('unnamed') }),
      output: item,
      example: { name: "o'hara" },
      async run(context, input) {
        seen(input, context.requestId);
        return { id: 'new', name: input.name };
      },
    }),
    defineOperation({
      ...common,
      name: 'keys.update',
      route: { method: 'PATCH', path: '/user/api-keys/{id}' },
      summary: 'Change a key',
      permission: 'keys:write',
      cost: 0,
      readOnly: false,
      audit: { action: 'updated', resourceType: 'api_key' },
      input: z.strictObject({ id: z.string().max(64), name: z.string().optional() }),
      output: item,
      example: { id: 'k1', name: 'new name' },
      async run(context, input) {
        seen(input, context.requestId);
        return { id: input.id, name: input.name ?? '' };
      },
    }),
    defineOperation({
      ...common,
      name: 'keys.revoke',
      route: { method: 'DELETE', path: '/user/api-keys/{id}' },
      summary: 'Revoke a key',
      permission: 'keys:write',
      cost: 0,
      readOnly: false,
      audit: { action: 'revoked', resourceType: 'api_key' },
      input: z.strictObject({ id: z.string().max(64) }),
      output: z.object({ id: z.string() }),
      example: { id: 'k1' },
      async run(context, input) {
        seen(input, context.requestId);
        return { id: input.id };
      },
    }),
    defineOperation({
      ...common,
      name: 'tenants.list',
      route: { method: 'GET', path: '/tenants' },
      summary: 'Not offered over HTTP',
      permission: null,
      transports: ['cli'],
      cost: 0,
      readOnly: true,
      input: z.strictObject({}),
      output: z.object({}),
      example: {},
      run: async () => ({}),
    }),
  ];
}

/** A line of the log as it was written. */
export interface Line extends LogFields {
  readonly level: string;
}

export interface TestServerOptions extends Partial<Omit<HttpParts, 'invoke' | 'log' | 'metrics'>> {
  readonly admission?: InvokeParts['admission'];
  readonly invoke?: HttpParts['invoke'];
  readonly seen?: (input: unknown, requestId: string) => void;
}

/** A server on parts in memory, with the lines it logs and its metrics. It does not listen. */
export function testServer({ admission, seen, ...overrides }: TestServerOptions = {}) {
  const lines: Line[] = [];
  const write = (level: string) => (fields: LogFields) => void lines.push({ ...fields, level });
  const metrics = openMetrics();
  const parts: HttpParts = {
    operations: testOperations(seen),
    endpoints: testEndpoints,
    invoke: createInvoke({
      database: memoryDatabase,
      admission: admission ?? {
        admit: () => ({ admitted: true, limits: [minuteLimit] }),
        refund() {},
        refuseUnmetered: () => null,
      },
      meter: { hasRoom: () => true, record() {} },
      audit: { append: async () => {}, appendAlone: async () => {} },
      wallClockMs: Date.now,
    }),
    authenticate: testAuthenticate,
    rightsHeard: () => 0,
    mcp: { ...openMcp, handle: async (_request, response) => void response.end('{}') },
    log: { debug: write('debug'), info: write('info'), warn: write('warn'), error: write('error'), flush() {} },
    metrics,
    version: '1.2.3',
    publicUrl: undefined,
    trustedProxies: [],
    ...overrides,
  };
  return { app: createHttpServer(parts), parts, lines, metrics };
}

const testAuthenticate: Authenticate = ({ headers }) => {
  if (headers['authorization'] === CREDENTIAL) return testPrincipal();
  throw new AppError('unauthenticated');
};

/** An MCP part that lets everything through, for what a test is not about. */
export const openMcp = { resource: null, check: () => null, assertScopes: () => undefined } as const;

const noTransaction = {} as Transaction;

const memoryDatabase: InvokeParts['database'] = {
  write: (_tenant, work) => work(noTransaction),
};

export const testEndpoints: readonly Endpoint[] = [
  {
    method: 'GET',
    path: '/healthz',
    summary: 'Alive',
    answer: () => ({ status: 200, contentType: 'text/plain; charset=utf-8', body: 'ok\n' }),
  },
  {
    method: 'GET',
    path: '/whoami',
    summary: 'What an endpoint is told',
    async answer(request) {
      const principal = await request.principal();
      return {
        status: 503,
        contentType: 'application/json',
        body: JSON.stringify({ ip: request.ipAddress, peer: request.peerAddress, owner: principal?.ownerId ?? null }),
        headers: { 'cache-control': 'max-age=1', 'x-extra': 'yes' },
      };
    },
  },
];
