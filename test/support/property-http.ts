// Cases over HTTP: the proper request for an input, and requests that no client would make on purpose.
import assert from 'node:assert/strict';
import type { FastifyInstance, InjectOptions } from 'fastify';
import type { ErrorCode } from '../../src/kernel/errors.ts';
import type { Operation } from '../../src/kernel/operation.ts';
import type { OpenApiDocument } from '../../src/transports/http/openapi.ts';
import type { Fields } from './operation-arbitraries.ts';
import { type Answer, assertOutput, assertProblem, asText, type Carrier, isFields } from './property-answers.ts';
import type { Caller } from './property-world.ts';

interface Request {
  readonly method: Operation['route']['method'];
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly payload?: string | Buffer;
}

/** Sends to the server without a socket. What may be answered comes from the server's own OpenAPI document. */
export async function httpCarrier(server: FastifyInstance): Promise<Carrier> {
  const { body } = await server.inject('/openapi.json');
  const declared = declaredAnswers(JSON.parse(body) as OpenApiDocument);

  async function send(operation: Operation, request: Request, caller: Caller): Promise<Answer> {
    const answer = await server.inject(withCredential(request, caller) as InjectOptions);
    const status = answer.statusCode;
    const requestId = String(answer.headers['x-request-id']);
    assert.match(requestId, /^[0-9a-f-]{36}$/, 'every answer has a request id');
    const allowed = declared.get(operation.name)?.get(status);
    const what = `${status} ${answer.body.slice(0, 500)}`;
    assert.ok(status < 500, `answered ${what}`);
    assert.ok(allowed !== undefined, `not declared: ${what}`);
    const { body: text } = answer;
    const value: unknown = JSON.parse(text);
    const named = (name: string) => answer.headers[name] !== undefined;
    const isDecided = allowed === 'success' || status === 402 || status === 429;
    assert.equal(named('ratelimit'), operation.cost > 0 && isDecided, 'limits are told where they were asked');
    assert.equal(named('www-authenticate'), status === 401);
    assert.equal(named('retry-after'), status === 429);
    if (allowed === 'success') {
      assert.equal(answer.headers['content-type'], 'application/json');
      assertOutput(operation, value);
      return { transport: 'http', requestId, code: 'ok', output: value, text };
    }
    assert.equal(answer.headers['content-type'], 'application/problem+json');
    const problem = assertProblem(value, requestId);
    assert.equal(problem.status, status);
    assert.ok(allowed.includes(problem.code), `not declared: ${what}`);
    return { transport: 'http', requestId, code: problem.code, problem, text };
  }

  return {
    transport: 'http',
    carry(operation, input, caller, style) {
      const authorization = `Bearer ${caller.credential}`;
      const made = toRequest(operation, input, caller.sign === undefined ? { authorization } : {});
      if (typeof made === 'string') return made;
      const { request, expected } = made;
      if (style.raw === null) return { expected, send: () => send(operation, request, caller) };
      const variants = request.payload === undefined ? queryVariants : bodyVariants;
      const variant = variants[style.raw % variants.length];
      return { expected: undefined, send: () => send(operation, { ...request, ...variant?.(request) }, caller) };
    },
  };
}

/** A service signs what is sent in the end. */
function withCredential(request: Request, { sign }: Caller): Request {
  if (sign === undefined) return request;
  const { method, url: target, payload: body = '' } = request;
  return { ...request, headers: { ...request.headers, ...sign({ method, target, body }) } };
}

/** Of every operation, the answers by their status: the success, or the codes of a refusal. */
function declaredAnswers({ paths, components }: OpenApiDocument) {
  const byName = new Map<string, Map<number, 'success' | readonly ErrorCode[]>>();
  const responses = components.responses as Record<string, { content: Record<string, { schema: unknown }> }>;
  for (const entry of Object.values(paths).flatMap((methods) => Object.values(methods))) {
    const { operationId, responses: references } = entry as { operationId?: string; responses?: Fields };
    if (operationId === undefined || references === undefined) continue;
    const answers = new Map<number, 'success' | readonly ErrorCode[]>();
    for (const [status, response] of Object.entries(references)) {
      const name = (response as { $ref?: string }).$ref?.replace('#/components/responses/', '');
      const schema = name === undefined ? undefined : responses[name]?.content['application/problem+json']?.schema;
      const [, narrowed] = (schema as { allOf?: { properties: { code: { enum: ErrorCode[] } } }[] })?.allOf ?? [];
      answers.set(Number(status), narrowed?.properties.code.enum ?? 'success');
    }
    byName.set(operationId, answers);
  }
  return byName;
}

function toRequest(
  { route: { method, path } }: Operation,
  input: unknown,
  headers: Readonly<Record<string, string>>,
): { request: Request; expected: Fields | undefined } | string {
  const fields = isFields(input) ? input : {};
  const inPath = [...path.matchAll(/\{(\w+)\}/g)].map((match) => match[1] ?? '');
  const texts: Record<string, string> = {};
  let url: string = path;
  for (const name of inPath) {
    const text = Object.hasOwn(fields, name) ? asText(fields[name]) : '';
    if (!text.isWellFormed()) return 'a URL holds well-formed text only';
    if (text === '.' || text === '..') return 'a URL with dots alone names another path';
    if (text === 'current') return 'the path is that of another operation';
    texts[name] = text;
    url = url.replace(`{${name}}`, encodeURIComponent(text));
  }
  const others = Object.entries(fields).filter(([name]) => !inPath.includes(name));

  if (method === 'POST' || method === 'PATCH') {
    const body = isFields(input) ? Object.fromEntries(others) : input;
    const request = {
      method,
      url,
      headers: { ...headers, 'content-type': 'application/json' },
      payload: JSON.stringify(body),
    };
    // Through JSON, as it travels: there is no -0 in it.
    const expected = isFields(input) ? (JSON.parse(JSON.stringify({ ...fields, ...texts })) as Fields) : undefined;
    return { request, expected };
  }

  if (!isFields(input)) return 'a query holds named values only';
  const query: string[] = [];
  let foreseen = true;
  for (const [name, value] of others) {
    // What repeats a name, or has a name that the server refuses to read, never becomes an input.
    const values = Array.isArray(value) && value.length > 1 ? value.map(asText) : [asText(value)];
    if (values.length > 1 || name === '__proto__' || name === 'constructor' || name === 'prototype') foreseen = false;
    if (![name, ...values].every((text) => text.isWellFormed())) return 'a URL holds well-formed text only';
    for (const text of values) query.push(`${encodeURIComponent(name)}=${encodeURIComponent(text)}`);
    texts[name] = values[0] ?? '';
  }
  if (query.length > 0) url += `?${query.join('&')}`;
  return { request: { method, url, headers }, expected: foreseen ? texts : undefined };
}

type Variant = (request: Request) => Partial<Request>;

const header =
  (name: string, value: string): Variant =>
  ({ headers }) => ({ headers: { ...headers, [name]: value } });
const payload =
  (change: (text: string) => string | Buffer): Variant =>
  ({ payload: text }) => ({ payload: change(String(text)) });
const query =
  (text: string): Variant =>
  ({ url }) => ({ url: `${url}${url.includes('?') ? '&' : '?'}${text}` });

const anyVariants: readonly Variant[] = [
  header('authorization', 'Bearer'),
  header('authorization', 'Basic YTpi'),
  header('authorization', `Bearer ${'x'.repeat(9_000)}`),
  header('authorization', 'Bearer a.b.c'),
  header('user-agent', 'é'.repeat(400)),
  header('x-forwarded-for', 'not an address, 1.2.3.4'),
  header('x-request-id', '../../etc/passwd'),
  header('accept', 'text/html;q=2, */*;q=banana'),
  header('cookie', '__session=eyJ; a=b'),
];

const bodyVariants: readonly Variant[] = [
  ...anyVariants,
  payload((text) => text.slice(0, -1)),
  payload((text) => `${text}}`),
  payload((text) => `${text}\0`),
  payload((text) => `\ufeff${text}`),
  payload((text) => text.replace('{', '{"symbol":"ETH","name":"one","name":"two",')),
  payload((text) => text.replace('{', '{"limit":1e999,')),
  payload((text) => text.replaceAll('"', "'")),
  payload((text) => Buffer.concat([Buffer.from(text.slice(0, -1)), Buffer.from([0x22, 0xff, 0xc0, 0x22])])),
  payload((text) => Buffer.from(text, 'utf16le')),
  payload(() => 'NaN'),
  payload(() => 'undefined'),
  payload(() => '[[[['.repeat(5_000)),
  payload(() => '{"a":'.repeat(5_000)),
  payload(() => `{"symbol":"${'\\u0000'.repeat(5_000)}"}`),
  header('content-type', 'text/plain'),
  header('content-type', 'application/json; charset=utf-16'),
  header('content-type', 'application/json; charset="UTF-8"'),
  header('content-type', 'multipart/form-data; boundary=x'),
  header('content-type', ''),
  header('content-encoding', 'gzip'),
  header('content-length', '5'),
  query('symbol=BTC'),
  query('&&='),
];

const queryVariants: readonly Variant[] = [
  ...anyVariants,
  query('limit=1&limit=2'),
  query('limit'),
  query('limit=%'),
  query('%zz=%zz'),
  query('limit[]=1'),
  query('__proto__=1'),
  query('constructor[prototype][x]=1'),
  query('&&&=&'),
  query('limit=1;cursor=2'),
  query('limit=+5'),
  query('limit=%00'),
  query('cursor=%ff%fe'),
  query('cursor=%ed%a0%80'),
  query(`cursor=${'a'.repeat(4_000)}`),
  query(`cursor=${'a'.repeat(5_000)}`),
  query(Array.from({ length: 1_000 }, (_, index) => `p${index}`).join('&')),
  (request) => ({ ...header('content-type', 'application/json')(request), payload: '{"limit":1}' }),
  (request) => ({ ...header('transfer-encoding', 'chunked')(request), payload: 'x' }),
  header('content-type', 'application/json'),
  header('content-length', '0'),
];
