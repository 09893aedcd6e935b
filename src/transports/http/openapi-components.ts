import { type ErrorCode, errorTable } from '../../kernel/errors.ts';

// The parts of the OpenAPI document that do not depend on the operations.

export type Json = Readonly<Record<string, unknown>>;

const reference = (section: string, name: string) => ({ $ref: `#/components/${section}/${name}` });

/** How a caller may identify itself, by kind of principal. */
export const securitySchemes = {
  api_key: {
    type: 'http',
    scheme: 'bearer',
    bearerFormat: 'iora_pk_(live|test)_...',
    description: 'An API key, sent as `Authorization: Bearer iora_pk_...`.',
  },
  session: {
    type: 'http',
    scheme: 'bearer',
    bearerFormat: 'JWT',
    description: 'The session token of a signed-in person.',
  },
  service: {
    type: 'apiKey',
    in: 'header',
    name: 'x-iora-signature',
    description:
      'The signature of a service over the whole call, beside `x-iora-key-id`, `x-iora-timestamp`, `x-iora-nonce` and, for a tenant, `x-iora-tenant`.',
  },
} as const;

const text = (description: string, example: string) => ({ description, schema: { type: 'string' }, example });
const number = (description: string) => ({ description, schema: { type: 'integer' } });

export const headers: Json = {
  'x-request-id': {
    ...text('Names this request in the logs of the server.', '0198f2a0-7c11-7b3a-9d4e-2f6a1c0b5e77'),
    required: true,
  },
  'RateLimit-Policy': text(
    'Every limit that applies: quota `q` in a window of `w` seconds.',
    '"month";q=10000;w=2678400, "minute";q=60;w=60',
  ),
  RateLimit: text(
    'What is left (`r`) of every limit, and in how many seconds (`t`) it is whole again.',
    '"month";r=9999;t=86400, "minute";r=59;t=60',
  ),
  'X-RateLimit-Limit': number('The limit with the smallest share left.'),
  'X-RateLimit-Remaining': number('What is left of that limit.'),
  'X-RateLimit-Reset': number('When that limit is whole again, in Unix seconds.'),
  'Retry-After': number('Seconds to wait before the request is worth repeating.'),
  'WWW-Authenticate': text('The form of credential that is asked for.', 'Bearer'),
  Allow: text('The methods that the path takes.', 'GET, HEAD'),
};

/** References to the headers of an answer with this status. */
export function responseHeaders(status: number, metered: boolean): Json {
  const names = ['x-request-id'];
  if (metered) {
    names.push('RateLimit-Policy', 'RateLimit', 'X-RateLimit-Limit', 'X-RateLimit-Remaining', 'X-RateLimit-Reset');
  }
  if (status === 401) names.push('WWW-Authenticate');
  if (status === 402 || status === 429 || status === 503) names.push('Retry-After');
  if (status === 405) names.push('Allow');
  return Object.fromEntries(names.map((name) => [name, reference('headers', name)]));
}

/** The body of every refusal. */
export const problemSchema: Json = {
  type: 'object',
  description: 'Problem details (RFC 9457). Some codes add members of their own.',
  required: ['type', 'title', 'status', 'code', 'detail', 'requestId', 'retryable'],
  properties: {
    type: { type: 'string', description: 'Where the code is explained.' },
    title: { type: 'string' },
    status: { type: 'integer' },
    code: { type: 'string', enum: Object.keys(errorTable) },
    detail: { type: 'string', description: 'What is wrong with this request.' },
    requestId: { type: 'string' },
    retryable: { type: 'boolean', description: 'Whether the same request may succeed later.' },
  },
};

/** The response with one of these codes, which share a status. */
export function errorResponse(status: number, codes: readonly ErrorCode[], metered: boolean): Json {
  return {
    description: codes.map((code) => `\`${code}\`: ${errorTable[code].title}.`).join(' '),
    headers: responseHeaders(status, metered),
    content: {
      'application/problem+json': {
        schema: { allOf: [reference('schemas', 'Problem'), { properties: { code: { enum: [...codes] } } }] },
      },
    },
  };
}

/** Codes by their status, in ascending order. */
export function byStatus(codes: readonly ErrorCode[]): [number, ErrorCode[]][] {
  const groups = new Map<number, ErrorCode[]>();
  for (const code of codes) {
    const { status } = errorTable[code];
    groups.set(status, [...(groups.get(status) ?? []), code]);
  }
  return [...groups].sort(([one], [other]) => one - other);
}
