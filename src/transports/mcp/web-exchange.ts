import type { IncomingMessage, ServerResponse } from 'node:http';

/** The headers that MCP reads. Only they are copied: it is faster, and the credential stays out of the library. */
const protocolHeaders = ['accept', 'content-type', 'mcp-protocol-version', 'mcp-method', 'mcp-name'] as const;

/** The request as the MCP library takes it: method and protocol headers. The body goes beside it, already parsed. */
export function toWebRequest(request: IncomingMessage): Request {
  const headers: Record<string, string> = {};
  for (const name of protocolHeaders) {
    const value = request.headers[name];
    if (typeof value === 'string') headers[name] = value;
  }
  return new Request('http://mcp.invalid/mcp', { method: request.method ?? 'POST', headers });
}

/**
 * Writes the library's answer as a whole, never as a stream: nothing here sends before its result, and the answer to
 * `subscriptions/listen` ends at once because no change is ever announced. Headers set on `response` before are kept.
 * Does nothing when the caller is gone or was answered already.
 */
export async function sendWebResponse(answer: Response, response: ServerResponse): Promise<void> {
  const text = answer.body === null ? '' : await answer.text();
  if (response.headersSent || response.destroyed) return;
  for (const [name, value] of answer.headers) {
    // The connection is the HTTP server's affair, which may be closing it.
    if (name !== 'connection') response.setHeader(name, value);
  }
  response.setHeader('content-length', Buffer.byteLength(text));
  response.writeHead(answer.status).end(text);
}
