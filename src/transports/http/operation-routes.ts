import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { AppError } from '../../kernel/errors.ts';
import type { Operation } from '../../kernel/operation.ts';
import { type DatabaseTime, measureDatabase } from '../../platform/postgres.ts';
import { createCallMeter } from './call-meter.ts';
import { bodyOf, callOf, confirmCaller, identifyCaller } from './caller.ts';
import type { HttpParts } from './http-parts.ts';
import { assertJson, hasBody, parseObject } from './json-body.ts';
import { inputFromBody, inputFromQuery } from './operation-input.ts';
import { rateLimitHeaders } from './rate-limit-headers.ts';
import type { About, Responder } from './respond.ts';
import { routerPath } from './router-path.ts';

/** A route for every operation offered over HTTP. */
export function addOperationRoutes(app: FastifyInstance, parts: HttpParts, responder: Responder): void {
  for (const operation of parts.operations) {
    if (operation.transports.includes('http')) addOperationRoute(app, parts, responder, operation);
  }
}

function addOperationRoute(app: FastifyInstance, parts: HttpParts, responder: Responder, operation: Operation): void {
  const { method, path } = operation.route;
  const meter = createCallMeter(parts.metrics, 'http', operation.name);
  const readInput = method === 'POST' || method === 'PATCH' ? readBodyInput : readQueryInput;

  async function answer(request: FastifyRequest, reply: FastifyReply, database: DatabaseTime): Promise<void> {
    const about: About = {
      route: path,
      transport: 'http',
      operation: operation.name,
      principal: null,
      cost: 0,
      database,
    };
    try {
      // Only what is not there yet is awaited: a cached caller without a body goes straight through.
      const identified = identifyCaller(parts, request);
      const caller = identified instanceof Promise ? await identified : identified;
      about.principal = caller.principal;
      const read = readInput(request);
      const input = read instanceof Promise ? await read : read;
      const confirmed = confirmCaller(parts, request, caller);
      const principal = confirmed instanceof Promise ? await confirmed : confirmed;
      const startedAtMs = performance.now();
      const outcome = await parts.invoke(operation, callOf(request, principal, 'http'), input);
      const headers = rateLimitHeaders(outcome.limits, Date.now());
      if (outcome.ok) {
        const body = JSON.stringify(outcome.output);
        about.cost = operation.cost;
        responder.send(
          request,
          reply,
          { status: outcome.status, contentType: 'application/json', body, headers },
          about,
        );
      } else {
        responder.refuse(request, reply, outcome.error, about, headers);
      }
      meter.finish(outcome.ok ? 'ok' : outcome.error.code, startedAtMs);
    } catch (thrown) {
      meter.count(responder.refuse(request, reply, thrown, about).code);
    }
  }

  function handler(request: FastifyRequest, reply: FastifyReply): void {
    const database = { ms: 0 };
    void measureDatabase(database, () => answer(request, reply, database));
  }

  app.route({ method, url: routerPath(path), handler });
}

type Fields = Readonly<Record<string, unknown>>;

function readBodyInput(request: FastifyRequest): Fields | Promise<Fields> {
  if (!hasBody(request.raw) && request.raw.headers['content-type'] === undefined) return bodyInput(request, NO_BODY);
  assertJson(request.raw);
  const body = bodyOf(request);
  return body instanceof Promise ? body.then((bytes) => bodyInput(request, bytes)) : bodyInput(request, body);
}

const NO_BODY = Buffer.alloc(0);

function bodyInput(request: FastifyRequest, body: Buffer): Fields {
  return inputFromBody(parseObject(body), request.query as Fields, request.params as Fields);
}

function readQueryInput(request: FastifyRequest): Fields {
  if (hasBody(request.raw)) {
    throw new AppError(
      'malformed_request',
      `${request.method} takes its parameters from the path and the query, not from a body.`,
    );
  }
  return inputFromQuery(request.query as Fields, request.params as Fields);
}
