// Serves the revisions up to 2025-11-25, which begin with a handshake, without keeping anything between requests. The
// library's own fallback for them answers every call as an event stream; this answers it as plain JSON, which the
// revisions allow, which curl can read, and which costs less.
import {
  PROTOCOL_VERSION_META_KEY,
  type Server,
  WebStandardStreamableHTTPServerTransport,
} from '@modelcontextprotocol/server';

/** First revision in which every request carries its own metadata; revisions are dates, so they sort as text. */
const FIRST_STATELESS_REVISION = '2026-07-28';

/** The only revision with batches; also what a request without the header is taken for, as later revisions demand. */
const BATCH_REVISION = '2025-03-26';

/**
 * Whether a request is well formed enough, and of a revision old enough, for `answerOlderRevision`. All else, malformed
 * bodies and batches of other revisions included, is for the library's handler, which words the refusals.
 */
export function isOlderRevision(versionHeader: string | undefined, body: unknown): boolean {
  if (versionHeader !== undefined && versionHeader >= FIRST_STATELESS_REVISION) return false;
  if (Array.isArray(body)) return body.length > 0 && (versionHeader ?? BATCH_REVISION) === BATCH_REVISION;
  return isObject(body) && typeof body['method'] === 'string' && !namesItsRevision(body);
}

function namesItsRevision(message: Record<string, unknown>): boolean {
  const params = message['params'];
  const meta = isObject(params) ? params['_meta'] : undefined;
  return isObject(meta) && PROTOCOL_VERSION_META_KEY in meta;
}

/** Answers one message, or the messages of a batch, on a server of their own. */
export async function answerOlderRevision(request: Request, body: unknown, server: Server): Promise<Response> {
  const transport = new WebStandardStreamableHTTPServerTransport({ enableJsonResponse: true });
  await server.connect(transport);
  try {
    return await transport.handleRequest(request, { parsedBody: withoutCancellations(body) });
  } finally {
    await server.close();
  }
}

/**
 * A batch without the cancellations in it: one that names another member would leave the batch without its last answer,
 * and so the caller waiting. Cancelling is a wish that a server may ignore; closing the connection does cancel.
 */
function withoutCancellations(body: unknown): unknown {
  if (!Array.isArray(body)) return body;
  return body.filter((message) => !isCancellation(message));
}

function isCancellation(message: unknown): boolean {
  return isObject(message) && message['method'] === 'notifications/cancelled' && !('id' in message);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
