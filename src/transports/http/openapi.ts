import { servicePermissions } from '../../kernel/context.ts';
import type { Endpoint } from '../../kernel/endpoint.ts';
import type { ErrorCode } from '../../kernel/errors.ts';
import type { Operation } from '../../kernel/operation.ts';
import { commonErrors, declaredErrors } from './declared-errors.ts';
import { MCP_PATH } from './mcp-route.ts';
import {
  byStatus,
  errorResponse,
  headers,
  type Json,
  problemSchema,
  responseHeaders,
  securitySchemes,
} from './openapi-components.ts';
import { operationSchemas, type Parameter } from './openapi-schema.ts';

/** What the document is made from. */
export interface OpenApiParts {
  readonly operations: readonly Operation[];
  readonly endpoints: readonly Endpoint[];
  readonly version: string;
  readonly publicUrl: string | undefined;
}

/** One method of one path. */
export interface OpenApiOperation {
  readonly operationId: string;
  readonly summary: string;
  readonly tags: readonly [string];
  readonly security: readonly Readonly<Record<string, readonly string[]>>[];
  readonly parameters?: readonly Parameter[];
  readonly requestBody?: { readonly required: boolean; readonly content: { readonly 'application/json': Json } };
  /** References below `components.responses`, except the successful one. */
  readonly responses: Readonly<Record<string, Json>>;
  /** Units charged against rate limit and quota. */
  readonly 'x-iora-cost'?: number;
  /** What the credential must hold. */
  readonly 'x-iora-permission'?: string | null;
}

export interface OpenApiDocument {
  readonly openapi: '3.1.0';
  readonly info: Json & { readonly title: string; readonly version: string; readonly description: string };
  readonly servers: readonly { readonly url: string }[];
  /** Path, then method in lower case; below `x-other-methods` stands what every other method is answered with. */
  readonly paths: Readonly<Record<string, Readonly<Record<string, OpenApiOperation | Json>>>>;
  readonly components: Readonly<Record<'schemas' | 'responses' | 'headers' | 'securitySchemes', Json>>;
}

/** The OpenAPI 3.1 document of a server with these operations and endpoints. Throws where one cannot be described. */
export function openApiDocument(parts: OpenApiParts): OpenApiDocument {
  const schemas: Record<string, unknown> = { Problem: problemSchema };
  const responses: Record<string, unknown> = {};
  const paths: Record<string, Record<string, OpenApiOperation | Json>> = {};

  /** References to the responses with these codes, which are kept once for all operations. */
  function errors(codes: readonly ErrorCode[], metered = false): Record<string, Json> {
    return Object.fromEntries(
      byStatus(codes).map(([status, group]) => {
        const name = [status, ...group, ...(metered ? ['metered'] : [])].join('.');
        responses[name] ??= errorResponse(status, group, metered);
        return [status, { $ref: `#/components/responses/${name}` }];
      }),
    );
  }

  function add(method: string, path: string, operation: OpenApiOperation): void {
    paths[path] ??= { 'x-other-methods': errors(['method_not_allowed']) };
    paths[path][method.toLowerCase()] = operation;
  }

  for (const operation of parts.operations) {
    if (!operation.transports.includes('http')) continue;
    const { method, path } = operation.route;
    const described = operationSchemas(operation);
    const metered = operation.cost > 0;
    const output = `${operation.name}.output`;
    Object.assign(schemas, described.definitions, { [output]: described.output });
    add(method, path, {
      operationId: operation.name,
      summary: operation.summary,
      tags: [operation.name.split('.')[0] ?? ''],
      security: securityOf(operation),
      parameters: [...described.path, ...described.query],
      ...(described.body === null ? {} : { requestBody: bodyOf(operation, described.body) }),
      responses: {
        [operation.status ?? 200]: {
          description: 'Done.',
          headers: responseHeaders(operation.status ?? 200, metered),
          content: { 'application/json': { schema: { $ref: `#/components/schemas/${output}` } } },
        },
        ...errors(declaredErrors(operation), metered),
      },
      'x-iora-cost': operation.cost,
      'x-iora-permission': operation.permission,
    });
  }

  // A readiness of 503 or a JSON-RPC error of 400 is no problem document, so those two are left to `default` here.
  const refusals = commonErrors.filter((code) => code !== 'unavailable' && code !== 'malformed_request');
  for (const { method, path, summary } of parts.endpoints) {
    add(method, path, serviceEntry(`service${path.replaceAll('/', '.')}`, summary, errors(refusals)));
  }
  add('POST', MCP_PATH, {
    ...serviceEntry('mcp', 'Model Context Protocol, Streamable HTTP: the operations as tools of an agent', {
      ...errors([...refusals, 'unauthenticated', 'forbidden', 'payload_too_large']),
      202: { description: 'A notification was taken.', headers: responseHeaders(202, false) },
    }),
    security: [{ api_key: [] }, { session: [] }],
    requestBody: { required: true, content: { 'application/json': { schema: { type: ['object', 'array'] } } } },
  });
  add('GET', '/openapi.json', serviceEntry('service.openapi', 'This document', errors(refusals)));
  add('GET', '/docs', serviceEntry('service.docs', 'The reference page', errors(refusals)));
  add('GET', '/docs/errors', serviceEntry('service.docs.errors', 'The error reference', errors(refusals)));

  return {
    openapi: '3.1.0',
    info: { title: 'IORA', version: parts.version, description, license: { name: 'MIT', identifier: 'MIT' } },
    servers: [{ url: parts.publicUrl ?? '/' }],
    paths,
    components: { schemas, responses, headers, securitySchemes },
  };
}

const description = [
  'Metered crypto-market tools for people and AI agents.',
  'Every answer carries `x-request-id`. A refusal is `application/problem+json` (RFC 9457); its `code` is explained at /docs/errors.',
  'Every GET can be asked as HEAD. Metered answers tell in `RateLimit` what is left of every limit.',
  'Lists are pages of `{items, nextCursor}`: pass `nextCursor` as `cursor` to get the next one.',
].join(' ');

function securityOf(operation: Operation): OpenApiOperation['security'] {
  const scopes = operation.permission === null ? [] : [operation.permission];
  return (['api_key', 'session', 'service'] as const)
    .filter((kind) => operation.callers === undefined || operation.callers.includes(kind))
    .filter((kind) => kind !== 'service' || isForServices(operation))
    .map((kind) => ({ [kind]: scopes }));
}

/** What a service holds is the same for all of them. */
function isForServices({ permission }: Operation): boolean {
  return permission === null || servicePermissions.some((held) => held === permission);
}

function bodyOf(operation: Operation, schema: Json): NonNullable<OpenApiOperation['requestBody']> {
  const properties = (schema['properties'] ?? {}) as Json;
  const example = Object.fromEntries(Object.entries(operation.example).filter(([name]) => name in properties));
  const required = ((schema['required'] ?? []) as readonly string[]).length > 0;
  return { required, content: { 'application/json': { schema, example } } };
}

/** What is not an operation: its answers are its own affair, so only the common refusals are told one by one. */
function serviceEntry(operationId: string, summary: string, refusals: Record<string, Json>): OpenApiOperation {
  return {
    operationId,
    summary,
    tags: ['service'],
    security: [{}],
    responses: {
      200: { description: 'Done.', headers: responseHeaders(200, false) },
      ...refusals,
      default: { description: 'As the endpoint words it.', headers: responseHeaders(200, false) },
    },
  };
}
