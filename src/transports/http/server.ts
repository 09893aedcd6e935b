import Fastify, { type FastifyError, type FastifyInstance } from 'fastify';
import { AppError, unavailable } from '../../kernel/errors.ts';
import { uuidV7 } from '../../lib/uuid-v7.ts';
import { createClientErrorHandler, refuseUnusualRequests } from './connection-errors.ts';
import { trackConnections } from './connections.ts';
import { addDocsRoutes } from './docs-routes.ts';
import { addEndpointRoutes } from './endpoint-routes.ts';
import {
  BODY_BYTES_MAX,
  CONNECTIONS_MAX,
  HEADER_BYTES_MAX,
  HEADERS_TIMEOUT_MS,
  KEEP_ALIVE_TIMEOUT_MS,
  PATH_PARAMETER_LENGTH_MAX,
  REQUEST_TIMEOUT_MS,
  TIMEOUT_CHECK_INTERVAL_MS,
  URL_LENGTH_MAX,
} from './http-limits.ts';
import type { HttpParts } from './http-parts.ts';
import { addMcpRoute } from './mcp-route.ts';
import { addOperationRoutes } from './operation-routes.ts';
import { createResponder, type Responder } from './respond.ts';
import { answerUnknownRoutes } from './unknown-routes.ts';

export type { HttpParts } from './http-parts.ts';

/**
 * The HTTP server, not listening yet: operations, endpoints, MCP, the OpenAPI document and the reference pages. Its
 * `close` lets running requests finish; who cannot wait for them calls `server.closeAllConnections()` as well.
 * Throws where a trusted proxy is no address, or an operation cannot be described.
 */
export function createHttpServer(parts: HttpParts): FastifyInstance {
  const docsUrl = parts.publicUrl ?? '';
  const responder = createResponder(parts.log, docsUrl);
  const app = Fastify({
    genReqId: () => uuidV7(Date.now()),
    trustProxy: parts.trustedProxies.length > 0 && [...parts.trustedProxies],
    bodyLimit: BODY_BYTES_MAX,
    keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS,
    requestTimeout: REQUEST_TIMEOUT_MS,
    forceCloseConnections: 'idle',
    return503OnClosing: false,
    routerOptions: { maxParamLength: PATH_PARAMETER_LENGTH_MAX },
    // Node answers a missing Host with an empty 400; refused below, it gets the same answer as everything else.
    http: {
      maxHeaderSize: HEADER_BYTES_MAX,
      headersTimeout: HEADERS_TIMEOUT_MS,
      connectionsCheckingInterval: TIMEOUT_CHECK_INTERVAL_MS,
      requireHostHeader: false,
    },
    clientErrorHandler: createClientErrorHandler(parts.log, docsUrl),
    frameworkErrors(error, request, reply) {
      request.startedAtMs = performance.now();
      responder.refuse(request, reply, frameworkError(error), { route: null, transport: 'http' });
    },
  });
  app.server.maxConnections = CONNECTIONS_MAX;
  refuseUnusualRequests(app.server, parts.log, docsUrl);
  takeBodiesFromFastify(app);
  guardRequests(app, responder);
  closeGracefully(app, responder);

  answerUnknownRoutes(app, responder);
  addOperationRoutes(app, parts, responder);
  addEndpointRoutes(app, parts, responder);
  addMcpRoute(app, parts, responder);
  addDocsRoutes(app, parts, responder);
  return app;
}

/** Errors of the router, before there is a route. */
function frameworkError(error: FastifyError): unknown {
  if (error.code === 'FST_ERR_BAD_URL') return new AppError('malformed_request', 'The path is not well encoded.');
  if (error.code === 'FST_ERR_MAX_PARAM_LENGTH') return pathTooLong();
  return error;
}

function pathTooLong(): AppError {
  return new AppError(
    'uri_too_long',
    `The path and query may have at most ${URL_LENGTH_MAX} characters, each part given by you at most ${PATH_PARAMETER_LENGTH_MAX}.`,
  );
}

/** No method has a body in Fastify's eyes: json-body.ts reads them. */
function takeBodiesFromFastify(app: FastifyInstance): void {
  for (const method of ['POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'QUERY']) {
    app.addHttpMethod(method, { hasBody: false, overrideExisting: true });
  }
}

/** What is refused whatever the route, and what becomes of an error nobody foresaw. */
function guardRequests(app: FastifyInstance, responder: Responder): void {
  const about = { route: null, transport: 'http' } as const;
  app.decorateRequest('startedAtMs', 0);
  app.decorateRequest('rawBody', null);
  app.decorateRequest('knownAddress', undefined);
  app.addHook('onRequest', (request, reply, done) => {
    request.startedAtMs = performance.now();
    const { url = '', headers, httpVersion } = request.raw;
    if (responder.closing) responder.refuse(request, reply, unavailable('The server is stopping.'), about);
    else if (url.length > URL_LENGTH_MAX) responder.refuse(request, reply, pathTooLong(), about);
    else if (headers.host === undefined && httpVersion === '1.1') {
      responder.refuse(request, reply, new AppError('malformed_request', 'The Host header is missing.'), about);
    } else done();
  });
  app.setErrorHandler((error, request, reply) => {
    responder.refuse(request, reply, error, about);
  });
}

/** How often connections that became idle while the server closes are looked for: its close waits for the last one. */
const IDLE_SWEEP_INTERVAL_MS = 50;

function closeGracefully(app: FastifyInstance, responder: Responder): void {
  const connections = trackConnections(app.server);
  app.addHook('preClose', (done) => {
    responder.startClosing();
    connections.endUnused();
    if (app.server.listening) {
      // Node ends the connections that are idle at this moment, not those that become so.
      const sweep = setInterval(() => app.server.closeIdleConnections(), IDLE_SWEEP_INTERVAL_MS);
      app.server.once('close', () => clearInterval(sweep));
    }
    done();
  });
}
