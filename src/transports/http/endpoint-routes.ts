import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { Authenticate, Principal } from '../../kernel/context.ts';
import type { Endpoint, EndpointAnswer, EndpointRequest } from '../../kernel/endpoint.ts';
import { toAppError } from '../../kernel/errors.ts';
import type { Answer } from './answer.ts';
import { authenticateRequest, bodyOf, callerAddress, withoutMapping } from './caller.ts';
import type { HttpParts } from './http-parts.ts';
import type { Responder } from './respond.ts';

/** A route for every plain endpoint. */
export function addEndpointRoutes(app: FastifyInstance, parts: HttpParts, responder: Responder): void {
  for (const endpoint of parts.endpoints) {
    app.route({
      method: endpoint.method,
      url: endpoint.path,
      handler: (request, reply) => void answerEndpoint(endpoint, parts.authenticate, responder, request, reply),
    });
  }
}

async function answerEndpoint(
  endpoint: Endpoint,
  authenticate: Authenticate,
  responder: Responder,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<void> {
  const about = { route: endpoint.path, transport: 'http' } as const;
  try {
    responder.send(request, reply, toAnswer(await endpoint.answer(endpointRequest(request, authenticate))), about);
  } catch (thrown) {
    responder.refuse(request, reply, thrown, about);
  }
}

function endpointRequest(request: FastifyRequest, authenticate: Authenticate): EndpointRequest {
  return {
    headers: request.raw.headers,
    ipAddress: callerAddress(request) ?? '',
    peerAddress: withoutMapping(request.raw.socket.remoteAddress ?? ''),
    body: () => bodyOf(request),
    principal: () => principalOrNull(request, authenticate),
  };
}

/** An endpoint is open: a credential that cannot be verified, for whatever reason we know, is as good as none. */
async function principalOrNull(request: FastifyRequest, authenticate: Authenticate): Promise<Principal | null> {
  try {
    return await authenticateRequest(authenticate, request);
  } catch (thrown) {
    const error = toAppError(thrown);
    if (error.code === 'internal') throw error;
    return null;
  }
}

function toAnswer({ status, contentType, body, headers = {} }: EndpointAnswer): Answer {
  const { 'cache-control': cacheControl, ...others } = headers;
  return { status, contentType, body, headers: Object.entries(others).flat(), cacheControl };
}
