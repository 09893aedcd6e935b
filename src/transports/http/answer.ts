import type { ServerResponse } from 'node:http';

/** One whole answer, before the headers that every answer has. */
export interface Answer {
  readonly status: number;
  readonly contentType: string;
  readonly body: string;
  /** Further headers, names and values in turn. */
  readonly headers?: readonly string[] | undefined;
  /** `no-store` where absent: most answers are for one caller. */
  readonly cacheControl?: string | undefined;
}

/** All headers of an answer, names and values in turn; the flat form is the one that Node writes fastest. */
export function answerHeaders(answer: Answer, requestId: string): string[] {
  const headers = [
    'content-type',
    answer.contentType,
    'content-length',
    String(Buffer.byteLength(answer.body)),
    'x-request-id',
    requestId,
    'cache-control',
    answer.cacheControl ?? 'no-store',
    'x-content-type-options',
    'nosniff',
  ];
  if (answer.headers !== undefined) headers.push(...answer.headers);
  return headers;
}

/**
 * Writes an answer straight to Node's response: Fastify's `reply.send` looks for hooks, serializers and streams that are
 * not used here. Does nothing when the caller is gone or answered already.
 */
export function writeAnswer(response: ServerResponse, answer: Answer, requestId: string): void {
  if (response.headersSent || response.destroyed) return;
  response.writeHead(answer.status, answerHeaders(answer, requestId));
  response.end(answer.body);
}
