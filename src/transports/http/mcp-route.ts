import type { ServerResponse } from 'node:http';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { AppError } from '../../kernel/errors.ts';
import type { Invoke } from '../../kernel/invoke.ts';
import { type DatabaseTime, measureDatabase } from '../../platform/postgres.ts';
import { type CallMeter, createCallMeter } from './call-meter.ts';
import { bodyOf, callOf, confirmCaller, identifyCaller } from './caller.ts';
import { LOGGED_OPERATIONS_MAX } from './http-limits.ts';
import type { HttpParts } from './http-parts.ts';
import type { About, Responder } from './respond.ts';

export const MCP_PATH = '/mcp';

/**
 * The one route of MCP. Host, Origin, credential and the size of the body are checked here and refused as problems;
 * all else, malformed JSON included, is answered by the MCP transport in the words of its protocol.
 */
export function addMcpRoute(app: FastifyInstance, parts: HttpParts, responder: Responder): void {
  const meterOf = metersOf(parts);

  async function answer(request: FastifyRequest, reply: FastifyReply, database: DatabaseTime): Promise<void> {
    const about: About = { route: MCP_PATH, transport: 'mcp', database, resource: parts.mcp.resource };
    try {
      const { host, origin } = request.raw.headers;
      const refusal = parts.mcp.check({ host, origin });
      if (refusal !== null) throw new AppError('forbidden', refusal);
      const caller = await identifyCaller(parts, request);
      about.principal = caller.principal;
      const body = parseOrUndefined(await bodyOf(request));
      const principal = await confirmCaller(parts, request, caller);
      parts.mcp.assertScopes(principal, body);

      const { invoke, ran } = watchInvoke(parts.invoke, meterOf);
      about.operations = ran.names;
      reply.hijack();
      prepare(reply.raw, request.id, responder.closing);
      await parts.mcp.handle(request.raw, reply.raw, body, { call: callOf(request, principal, 'mcp'), invoke });
      const { statusCode } = reply.raw;
      const code = ran.error?.code ?? (statusCode < 400 ? 'ok' : undefined);
      about.cost = ran.cost;
      responder.log(request, statusCode, code, about, ran.error);
    } catch (thrown) {
      responder.refuse(request, reply, thrown, about);
    }
  }

  app.post(MCP_PATH, (request, reply) => {
    const database = { ms: 0 };
    void measureDatabase(database, () => answer(request, reply, database));
  });
}

/** An empty body and one that is no JSON are the same to the MCP transport, which words the refusal. */
function parseOrUndefined(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString());
  } catch {
    return undefined;
  }
}

/** The headers of every answer, set before the MCP transport writes its own. */
function prepare(response: ServerResponse, requestId: string, closing: boolean): void {
  response.setHeader('x-request-id', requestId);
  response.setHeader('cache-control', 'no-store');
  response.setHeader('x-content-type-options', 'nosniff');
  if (closing) response.shouldKeepAlive = false;
}

/** What the operations of one MCP request came to. */
interface Ran {
  readonly names: string[];
  cost: number;
  /** The first refusal or failure. */
  error: AppError | undefined;
}

/** `invoke` for one request, which remembers what it ran and counts it. */
function watchInvoke(invoke: Invoke, meterOf: (operation: string) => CallMeter): { invoke: Invoke; ran: Ran } {
  const ran: Ran = { names: [], cost: 0, error: undefined };
  return {
    ran,
    async invoke(operation, call, rawInput) {
      const startedAtMs = performance.now();
      if (ran.names.length < LOGGED_OPERATIONS_MAX) ran.names.push(operation.name);
      const outcome = await invoke(operation, call, rawInput);
      if (outcome.ok) ran.cost += operation.cost;
      else ran.error ??= outcome.error;
      meterOf(operation.name).finish(outcome.ok ? 'ok' : outcome.error.code, startedAtMs);
      return outcome;
    },
  };
}

function metersOf(parts: HttpParts): (operation: string) => CallMeter {
  const meters = new Map<string, CallMeter>();
  return (operation) => {
    let meter = meters.get(operation);
    if (meter === undefined) {
      meter = createCallMeter(parts.metrics, 'mcp', operation);
      meters.set(operation, meter);
    }
    return meter;
  };
}
