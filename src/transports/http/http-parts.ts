import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Authenticate, Call, Principal } from '../../kernel/context.ts';
import type { Endpoint } from '../../kernel/endpoint.ts';
import type { Invoke } from '../../kernel/invoke.ts';
import type { Operation } from '../../kernel/operation.ts';
import type { Log } from '../../platform/log.ts';
import type { Metrics } from '../../platform/metrics.ts';
import type { ProtectedResource } from './bearer-challenge.ts';

/** What the HTTP transport is made from. */
export interface HttpParts {
  readonly operations: readonly Operation[];
  readonly endpoints: readonly Endpoint[];
  readonly invoke: Invoke;
  readonly authenticate: Authenticate;
  /** Counts what was heard of changed rights since the start. */
  readonly rightsHeard: () => number;
  readonly mcp: McpPart;
  readonly log: Log;
  readonly metrics: Metrics;
  /** Of this release. */
  readonly version: string;
  /** Address under which callers reach the server, without a slash at its end. */
  readonly publicUrl: string | undefined;
  /** Addresses and CIDR ranges whose `X-Forwarded-For` is believed. */
  readonly trustedProxies: readonly string[];
}

/** The MCP transport as this one sees it. */
export interface McpPart {
  /** What OAuth access tokens for /mcp are made for; null where no issuer of such tokens is configured. */
  readonly resource: ProtectedResource | null;
  /** Why a request with such headers must not be answered (403), or null when it may. */
  check(headers: { host?: string | undefined; origin?: string | undefined }): string | null;
  /** Throws `insufficient_scope` where an OAuth token was not issued for what the message asks. */
  assertScopes(principal: Principal, parsedBody: unknown): void;
  /** Writes the answer itself. `parsedBody` is undefined where the body is empty or no JSON. */
  handle(
    request: IncomingMessage,
    response: ServerResponse,
    parsedBody: unknown,
    caller: { readonly call: Call; readonly invoke: Invoke },
  ): Promise<void>;
}
