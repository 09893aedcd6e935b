import { type IncomingMessage, type Server, type ServerResponse, STATUS_CODES } from 'node:http';
import type { Duplex } from 'node:stream';
import { AppError } from '../../kernel/errors.ts';
import { uuidV7 } from '../../lib/uuid-v7.ts';
import type { Log } from '../../platform/log.ts';
import { answerHeaders, writeAnswer } from './answer.ts';
import { HEADER_BYTES_MAX } from './http-limits.ts';
import { problemAnswer } from './problem-reply.ts';

// Requests that never become one for Fastify: Node's parser gives them up, or hands them to an event of their own.

/**
 * The handler of `clientError`. While a body is being read, its reader refuses the request, which is logged with all
 * that is known of it; else a problem goes straight to the socket, where one can still be written.
 */
export function createClientErrorHandler(log: Log, docsUrl: string) {
  return function answerClientError(error: NodeJS.ErrnoException, socket: SocketInUse): void {
    if (error.code === 'ECONNRESET' || !socket.writable) return;
    const refusal = clientError(error.code);
    const response = socket._httpMessage;
    if (response == null) {
      refuseOnSocket(socket, refusal, log, docsUrl);
    } else if (response.headersSent || response.req.complete) {
      // A second answer would garble the first, or be taken for the answer to a request that is fine.
      socket.destroy();
    } else {
      response.shouldKeepAlive = false;
      if (response.req.listenerCount('error') > 0) response.req.emit('error', refusal);
      else refuseOnSocket(socket, refusal, log, docsUrl);
    }
  };
}

/** Node keeps the response that a socket is busy with here; its default handler of `clientError` looks at it, too. */
type SocketInUse = Duplex & { _httpMessage?: ServerResponse | null };

/** CONNECT, and an `Expect` that cannot be met: without listeners Node answers neither in a form that we promise. */
export function refuseUnusualRequests(server: Server, log: Log, docsUrl: string): void {
  server.on('connect', (_request: IncomingMessage, socket: Duplex) => {
    refuseOnSocket(socket, new AppError('method_not_allowed', 'This server is no proxy.'), log, docsUrl);
  });
  server.on('checkExpectation', (request: IncomingMessage, response: ServerResponse) => {
    const error = new AppError('malformed_request', 'The only Expect that can be met is 100-continue.');
    const requestId = uuidV7(Date.now());
    response.shouldKeepAlive = false;
    writeAnswer(response, problemAnswer(error, requestId, docsUrl), requestId);
    log.info(lineOf(error, requestId, request.method), 'request');
  });
}

function clientError(code: string | undefined): AppError {
  if (code === 'HPE_HEADER_OVERFLOW') {
    return new AppError('headers_too_large', `Request line and headers may have at most ${HEADER_BYTES_MAX} bytes.`);
  }
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT') return new AppError('request_timeout');
  return new AppError('malformed_request', 'This is not a well-formed HTTP/1.1 request.');
}

/** Time a refused caller has to read the refusal; closing at once could reset the connection before he did. */
const LINGER_MS = 1_000;

function refuseOnSocket(socket: Duplex, error: AppError, log: Log, docsUrl: string): void {
  const requestId = uuidV7(Date.now());
  const answer = problemAnswer(error, requestId, docsUrl);
  const headers = answerHeaders(answer, requestId);
  let head = `HTTP/1.1 ${answer.status} ${STATUS_CODES[answer.status]}\r\nconnection: close\r\n`;
  for (let index = 0; index < headers.length; index += 2) head += `${headers[index]}: ${headers[index + 1]}\r\n`;
  socket.on('error', () => socket.destroy());
  socket.end(`${head}\r\n${answer.body}`);
  setTimeout(() => socket.destroy(), LINGER_MS).unref();
  log.info(lineOf(error, requestId, undefined), 'request');
}

function lineOf(error: AppError, requestId: string, method: string | undefined) {
  return { method, route: null, status: error.status, code: error.code, cost: 0, requestId, transport: 'http' };
}
