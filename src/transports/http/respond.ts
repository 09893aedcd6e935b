import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Principal, TransportName } from '../../kernel/context.ts';
import { type AppError, toAppError } from '../../kernel/errors.ts';
import type { Log } from '../../platform/log.ts';
import type { DatabaseTime } from '../../platform/postgres.ts';
import { type Answer, writeAnswer } from './answer.ts';
import { bearerChallenge, type ProtectedResource } from './bearer-challenge.ts';
import { problemAnswer } from './problem-reply.ts';

/** What the wide line of a request says beyond what every request has. */
export interface About {
  /** The pattern, never the URL itself; null where none matched. */
  readonly route: string | null;
  readonly transport: TransportName;
  readonly operation?: string;
  /** The operations that one MCP request ran. */
  operations?: readonly string[];
  principal?: Principal | null;
  /** What access tokens for this route are made for; told to whoever comes without a fitting one. */
  readonly resource?: ProtectedResource | null;
  /** What the call spent in the database. */
  readonly database?: DatabaseTime;
  /** What was charged. */
  cost?: number;
}

/** Ends requests: the answer to the caller, and the one line to the log. */
export interface Responder {
  send(request: FastifyRequest, reply: FastifyReply, answer: Answer, about: About): void;
  /** Answers anything thrown as the problem it is. `headers` are names and values in turn. Returns the public error. */
  refuse(
    request: FastifyRequest,
    reply: FastifyReply,
    thrown: unknown,
    about: About,
    headers?: readonly string[],
  ): AppError;
  /** The line alone, for an answer written elsewhere. `code` is `ok`, a public error code, or unknown. */
  log(request: FastifyRequest, status: number, code: string | undefined, about: About, error?: AppError): void;
  /** From now on every answer tells the caller to close its connection. */
  startClosing(): void;
  readonly closing: boolean;
  readonly docsUrl: string;
}

/** Makes the responder of one server. `docsUrl` is its public address, empty where none is known. */
export function createResponder(log: Log, docsUrl: string): Responder {
  let closing = false;

  function write(request: FastifyRequest, reply: FastifyReply, answer: Answer): void {
    if (closing) reply.raw.shouldKeepAlive = false;
    writeAnswer(reply.raw, answer, request.id);
  }

  const responder: Responder = {
    docsUrl,
    get closing() {
      return closing;
    },
    startClosing() {
      closing = true;
    },
    send(request, reply, answer, about) {
      write(request, reply, answer);
      responder.log(request, answer.status, answer.status < 400 ? 'ok' : undefined, about);
    },
    refuse(request, reply, thrown, about, headers = []) {
      const error = toAppError(thrown);
      const given = request.raw.headers.authorization !== undefined;
      const challenge = bearerChallenge(error, { resource: about.resource ?? null, given });
      // The rest of a body that nobody will read stands between this answer and the next request.
      if (error.code === 'payload_too_large' && !request.raw.complete) reply.raw.shouldKeepAlive = false;
      write(
        request,
        reply,
        problemAnswer(error, request.id, docsUrl, [
          ...headers,
          ...(challenge === null ? [] : ['WWW-Authenticate', challenge]),
        ]),
      );
      responder.log(request, error.status, error.code, about, error);
      return error;
    },
    log(request, status, code, about, error) {
      const { principal } = about;
      const line = {
        method: request.raw.method,
        route: about.route,
        operation: about.operation,
        operations: about.operations,
        tenant: principal?.ownerId,
        keyId: principal?.key?.id,
        service: principal?.service ?? undefined,
        status,
        code,
        ms: toMicroseconds(performance.now() - request.startedAtMs),
        dbMs: toMicroseconds(about.database?.ms ?? 0),
        cost: about.cost ?? 0,
        requestId: request.id,
        transport: about.transport,
      };
      // A dependency that is away is an expected answer, many times a second; only a fault of ours shows where it happened.
      if (error?.code === 'internal') log.error({ ...line, err: error }, 'request');
      else if (error !== undefined && error.status >= 500) log.warn({ ...line, detail: error.message }, 'request');
      else log.info(line, 'request');
    },
  };
  return responder;
}

/** Milliseconds are logged to the microsecond; the digits behind are noise. */
function toMicroseconds(ms: number): number {
  return Math.round(ms * 1_000) / 1_000;
}

declare module 'fastify' {
  interface FastifyRequest {
    /** When the request's headers had arrived, by the monotonic clock. */
    startedAtMs: number;
  }
}
