import assert from 'node:assert/strict';
import { test } from 'node:test';
import { z } from 'zod';
import { defineOperation, type Operation } from '../../kernel/operation.ts';
import { type OpenApiOperation, openApiDocument } from './openapi.ts';
import { authorised, testEndpoints, testOperations, testServer } from './test-server.ts';

const parts = { operations: testOperations(), endpoints: testEndpoints, version: '1.2.3', publicUrl: undefined };
const document = openApiDocument(parts);

function operationAt(method: string, path: string): OpenApiOperation {
  const operation = document.paths[path]?.[method.toLowerCase()];
  assert.ok(operation !== undefined, `${method} ${path}`);
  return operation as OpenApiOperation;
}

function operationsOf(): OpenApiOperation[] {
  return Object.values(document.paths).flatMap((methods) =>
    Object.entries(methods).flatMap(([name, value]) => (name.startsWith('x-') ? [] : [value as OpenApiOperation])),
  );
}

function walk(value: unknown, visit: (node: Record<string, unknown>) => void): void {
  if (typeof value !== 'object' || value === null) return;
  if (!Array.isArray(value)) visit(value as Record<string, unknown>);
  for (const member of Object.values(value)) walk(member, visit);
}

function target(reference: string, within: unknown = document): unknown {
  return reference
    .replace(/^#\//, '')
    .split('/')
    .reduce<unknown>((node, step) => (node as Record<string, unknown> | undefined)?.[step], within);
}

test('it is plain JSON of OpenAPI 3.1', () => {
  assert.deepEqual(JSON.parse(JSON.stringify(document)), document);
  assert.equal(document.openapi, '3.1.0');
  assert.equal(document.info.version, '1.2.3');
});

test('every reference leads somewhere, every component is named as one may be, no dialect is left inside', () => {
  let references = 0;
  walk(document, (node) => {
    assert.ok(!('$schema' in node) && !('$defs' in node));
    if (typeof node['$ref'] !== 'string') return;
    references++;
    assert.ok(target(node['$ref']) !== undefined, node['$ref']);
  });
  assert.ok(references > 50);
  for (const section of Object.values(document.components)) {
    for (const name of Object.keys(section)) assert.match(name, /^[a-zA-Z0-9._-]+$/);
  }
});

test('every operation offered over HTTP is there, and only those', () => {
  for (const operation of parts.operations) {
    const { method, path } = operation.route;
    if (operation.transports.includes('http')) assert.equal(operationAt(method, path).operationId, operation.name);
    else assert.equal(document.paths[path], undefined);
  }
  for (const { method, path } of testEndpoints) assert.ok(operationAt(method, path));
  for (const path of ['/openapi.json', '/docs', '/docs/errors']) assert.ok(operationAt('GET', path));
  assert.ok(operationAt('POST', '/mcp'));
});

test('operation ids are unique', () => {
  const ids = operationsOf().map(({ operationId }) => operationId);
  assert.equal(new Set(ids).size, ids.length);
});

test('path parameters are those of the path, the others are query or body', () => {
  const update = operationAt('PATCH', '/user/api-keys/{id}');
  assert.deepEqual(
    update.parameters?.map((parameter) => [parameter.name, parameter.in, parameter.required]),
    [['id', 'path', true]],
  );
  const body = update.requestBody?.content['application/json'] as { schema: object; example: object };
  assert.deepEqual(body.schema, {
    type: 'object',
    properties: { name: { type: 'string' } },
    additionalProperties: false,
  });
  assert.deepEqual(body.example, { name: 'new name' });
  assert.equal(update.requestBody?.required, false);

  const list = operationAt('GET', '/user/api-keys');
  assert.deepEqual(
    list.parameters?.map((parameter) => [parameter.name, parameter.in, parameter.required, parameter.example]),
    [
      ['limit', 'query', false, 10],
      ['cursor', 'query', false, undefined],
    ],
  );
  assert.equal(list.requestBody, undefined);
});

test('the statuses an operation declares follow from what it says of itself', () => {
  const statuses = (method: string, path: string) => Object.keys(operationAt(method, path).responses).join(' ');
  const common = ['400', '401', '403', '408', '414', '429', '431', '500', '503'];
  const declared = (...more: string[]) => [...common, ...more].sort().join(' ');
  assert.equal(statuses('POST', '/tools/get_price'), declared('200', '402', '404', '413', '415'));
  assert.equal(statuses('GET', '/user/api-keys'), declared('200'));
  assert.equal(statuses('POST', '/user/api-keys'), declared('201', '404', '409', '413', '415'));
  assert.equal(statuses('DELETE', '/user/api-keys/{id}'), declared('200', '404'));
});

test('below every path stands what the methods it does not take are answered with', () => {
  for (const entry of Object.values(document.paths)) {
    const { 405: response } = entry['x-other-methods'] as unknown as Record<string, { $ref: string }>;
    assert.ok(response?.$ref.includes('method_not_allowed'));
  }
});

test('what the server answers is declared, headers included', async () => {
  const { app } = testServer();
  const requests = [
    { method: 'POST', url: '/tools/get_price', headers: authorised, payload: { symbol: 'BTC' } },
    { method: 'POST', url: '/tools/get_price', headers: authorised, payload: { symbol: 'UNKNOWN' } },
    { method: 'POST', url: '/tools/get_price', headers: authorised, payload: { symbol: 'BROKEN' } },
    { method: 'POST', url: '/tools/get_price', payload: {} },
    { method: 'POST', url: '/tools/get_price', headers: authorised, payload: [] },
  ] as const;
  for (const request of requests) {
    const answer = await app.inject(request);
    const declared = operationAt('POST', request.url).responses[answer.statusCode] as Record<string, unknown>;
    const reference = declared['$ref'];
    const response = (typeof reference === 'string' ? target(reference) : declared) as Record<string, object>;
    assert.ok(String(answer.headers['content-type']) in (response['content'] ?? {}));
    const names = Object.keys(response['headers'] ?? {}).map((name) => name.toLowerCase());
    const usual = ['content-type', 'content-length', 'cache-control', 'x-content-type-options', 'date', 'connection'];
    for (const name of Object.keys(answer.headers)) {
      assert.ok(usual.includes(name) || names.includes(name), `${answer.statusCode} ${name}`);
    }
  }
});

test('it is served as it is made', async () => {
  const { app } = testServer({ publicUrl: 'https://iora.example' });
  const answer = await app.inject({ method: 'GET', url: '/openapi.json' });
  assert.deepEqual(answer.json(), openApiDocument({ ...parts, publicUrl: 'https://iora.example' }));
  assert.deepEqual(answer.json().servers, [{ url: 'https://iora.example' }]);
});

function trial(change: Partial<Operation>): Operation {
  return {
    ...defineOperation({
      name: 'trees.get',
      route: { method: 'GET', path: '/trees/{id}' },
      summary: 'A tree',
      permission: null,
      audience: 'tenant',
      transports: ['http'],
      cost: 0,
      input: z.object({ id: z.string() }),
      output: z.object({}),
      answer: 'json',
      idempotent: true,
      readOnly: true,
      example: {},
      run: async () => ({}),
    }),
    ...change,
  };
}

test('a schema that contains itself moves into the components whole', () => {
  const tree = z
    .object({
      get children() {
        return z.array(tree);
      },
    })
    .meta({ id: 'Tree' });
  const made = openApiDocument({ ...parts, operations: [trial({ output: z.object({ root: tree }) })] });
  const references: string[] = [];
  walk(made, (node) => {
    if (typeof node['$ref'] === 'string' && node['$ref'].includes('Tree')) references.push(node['$ref']);
  });
  assert.equal(references.length, 2);
  for (const reference of references) assert.equal((target(reference, made) as { type: string }).type, 'object');
});

test('an operation whose path names what its input lacks cannot be described', () => {
  const operations = [trial({ input: z.object({}) })];
  assert.throws(() => openApiDocument({ ...parts, operations }), /trees\.get.*\{id\}/);
});
