import type { IncomingMessage, ServerResponse } from 'node:http';
import {
  type CallToolRequestParams,
  type CallToolResult,
  createMcpHandler,
  ProtocolError,
  ProtocolErrorCode,
  Server,
  type ServerOptions,
} from '@modelcontextprotocol/server';
import type { Call, Principal } from '../../kernel/context.ts';
import { toAppError } from '../../kernel/errors.ts';
import type { Invoke, Outcome } from '../../kernel/invoke.ts';
import type { Operation } from '../../kernel/operation.ts';
import { answerOlderRevision, isOlderRevision } from './older-revisions.ts';
import { createScopeCheck } from './required-scopes.ts';
import { toToolResult } from './tool-result.ts';
import { createToolSets, type ToolSet } from './tools.ts';
import { sendWebResponse, toWebRequest } from './web-exchange.ts';

export interface McpParts {
  readonly operations: readonly Operation[];
  /** Of this release, as the server names itself to clients. */
  readonly version: string;
  /** The server's public address, under which the error pages are found. */
  readonly docsUrl?: string | undefined;
}

/** Who is calling, and the way into the operations for this one request. */
export interface McpCaller {
  readonly call: Call;
  readonly invoke: Invoke;
}

export interface McpTransport {
  /**
   * Answers one HTTP request on /mcp for an already authenticated caller. `parsedBody` is the JSON value of the body,
   * undefined where it was empty or no JSON. Whatever a caller sends is answered below 500.
   */
  handle(request: IncomingMessage, response: ServerResponse, parsedBody: unknown, caller: McpCaller): Promise<void>;
  /** Throws `insufficient_scope` where an OAuth token was not issued for what the message asks. */
  assertScopes(principal: Principal, parsedBody: unknown): void;
  /** Ends what is still being answered; to be called once the HTTP server has drained. */
  close(): Promise<void>;
}

/**
 * MCP over Streamable HTTP for the revision 2026-07-28 and those before it, the tools being the operations. Nothing is
 * kept between two requests, so any instance can answer any of them. Throws where an operation cannot be a tool.
 */
export function createMcpTransport(parts: McpParts): McpTransport {
  const toolsFor = createToolSets(parts.operations);
  const info = { name: 'iora', title: 'IORA', version: parts.version };
  const callers = new WeakMap<Request, McpCaller>();

  function serverFor(request: Request | undefined): Server {
    const caller = request && callers.get(request);
    if (caller === undefined) throw new Error('an MCP request without its caller');
    const tools = toolsFor(caller.call.principal);
    const server = new Server(info, serverOptions);
    server.setRequestHandler('tools/list', ({ params }) => listTools(tools, params?.cursor));
    server.setRequestHandler('tools/call', ({ params }) => callTool(tools, params, caller, parts.docsUrl));
    return server;
  }

  // Older revisions are told apart here, before the library would, because it can answer them only as event streams.
  const handler = createMcpHandler(({ requestInfo }) => serverFor(requestInfo), { legacy: 'reject' });

  return {
    assertScopes: createScopeCheck(parts.operations),
    async handle(request, response, parsedBody, caller) {
      if (request.method !== 'POST') {
        await sendWebResponse(methodNotAllowed(), response);
        return;
      }
      if (hasArgumentLostUnseen(parsedBody)) {
        await sendWebResponse(invalidRequest('The name __proto__ is not allowed among the arguments.'), response);
        return;
      }
      const webRequest = toWebRequest(request);
      callers.set(webRequest, caller);
      const answer = isOlderRevision(webRequest.headers.get('mcp-protocol-version') ?? undefined, parsedBody)
        ? await answerOlderRevision(webRequest, parsedBody, serverFor(webRequest))
        : await handler.fetch(webRequest, { parsedBody });
      await sendWebResponse(answer, response);
    },
    close: () => handler.close(),
  };
}

/** How long a client may keep the list of tools; a permission granted meanwhile shows after at most this time. */
const TOOLS_TTL_MS = 60_000;

const serverOptions: ServerOptions = {
  capabilities: { tools: {} },
  // The list depends on the caller's permissions, so no cache may share it.
  cacheHints: {
    'tools/list': { ttlMs: TOOLS_TTL_MS, cacheScope: 'private' },
    'server/discover': { ttlMs: TOOLS_TTL_MS, cacheScope: 'private' },
  },
  instructions: [
    'IORA answers questions about crypto markets, and about your own use of it.',
    'You see the tools your credential allows. The description of each says what a call costs; a call that is refused or fails is not charged.',
    'What is left of your limits comes with every metered answer, in `_meta` under `iora/limits`.',
    'A refusal has `isError` and, as its only text, a JSON problem: `code` names it, `detail` says what to do.',
    'When `retryable` is true, try again after `retryAfterMs`; otherwise change the call first, for the same call will be refused again.',
  ].join(' '),
};

function listTools({ tools }: ToolSet, cursor: string | undefined) {
  if (cursor === undefined) return { tools };
  throw new ProtocolError(ProtocolErrorCode.InvalidParams, 'Unknown cursor: all tools are on the first page.');
}

/** Enough of an unknown tool's name to recognise it by. */
const ECHOED_NAME_LENGTH_MAX = 64;

async function callTool(
  { operations }: ToolSet,
  params: CallToolRequestParams,
  { call, invoke }: McpCaller,
  docsUrl: string | undefined,
): Promise<CallToolResult> {
  const operation = operations.get(params.name);
  if (operation === undefined) {
    const available = [...operations.keys()];
    const choice = available.length === 0 ? 'Your credential allows none.' : `You may call: ${available.join(', ')}.`;
    const message = `Unknown tool: ${params.name.slice(0, ECHOED_NAME_LENGTH_MAX)}. ${choice}`;
    throw new ProtocolError(ProtocolErrorCode.InvalidParams, message, { tools: available });
  }
  let outcome: Outcome;
  try {
    outcome = await invoke(operation, call, params.arguments ?? {});
  } catch (thrown) {
    // The library would show the caller the message of anything thrown.
    outcome = { ok: false, error: toAppError(thrown), limits: [] };
  }
  return toToolResult(outcome, call.requestId, docsUrl);
}

/**
 * Whether a message has an argument `__proto__`: the library drops it, so the call would run as if it had not been sent,
 * and nobody would be told.
 */
function hasArgumentLostUnseen(body: unknown): boolean {
  return [body].flat().some((message) => {
    const { params } = Object(message) as { params?: unknown };
    const { arguments: given } = Object(params) as { arguments?: unknown };
    return Object.hasOwn(Object(given), '__proto__');
  });
}

function invalidRequest(message: string): Response {
  const error = { code: ProtocolErrorCode.InvalidRequest, message };
  return Response.json({ jsonrpc: '2.0', error, id: null }, { status: 400 });
}

/** One endpoint that takes POST: without sessions there is no stream to open with GET and nothing to DELETE. */
function methodNotAllowed(): Response {
  const error = { code: ProtocolErrorCode.InvalidRequest, message: 'MCP messages are sent with POST.' };
  return Response.json({ jsonrpc: '2.0', error, id: null }, { status: 405, headers: { allow: 'POST' } });
}
