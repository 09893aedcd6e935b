import type { Principal } from '../../kernel/context.ts';
import { AppError } from '../../kernel/errors.ts';
import { type Operation, toolName } from '../../kernel/operation.ts';

/** Every scope that some tool takes: the permissions of the operations offered as tools, in their order. */
export function scopesOfTools(operations: readonly Operation[]): readonly string[] {
  const permissions = operations
    .filter((operation) => operation.transports.includes('mcp'))
    .flatMap(({ permission }) => (permission === null ? [] : [permission]));
  return [...new Set(permissions)];
}

/**
 * Refuses what an OAuth token was not issued for, before the protocol answers: a client asks its user for more only when HTTP
 * says 403. A token that opens no tool at all is refused whatever it asks. All other credentials pass. Throws
 * `insufficient_scope` with `missingScopes`, and `scopes` to ask for: those and the ones it has.
 */
export function createScopeCheck(operations: readonly Operation[]): (principal: Principal, body: unknown) => void {
  const offered = scopesOfTools(operations);
  const permissionOf = new Map(operations.map((operation) => [toolName(operation), operation.permission]));

  return function assertScopes({ scopes }, body) {
    if (scopes === null) return;
    const opensNothing = !offered.some((scope) => scopes.has(scope));
    const missing = opensNothing ? offered : calledTools(body).flatMap((tool) => permissionOf.get(tool) ?? []);
    refuseMissing(scopes, missing);
  };
}

function refuseMissing(scopes: ReadonlySet<string>, needed: readonly string[]): void {
  const missingScopes = [...new Set(needed)].filter((scope) => !scopes.has(scope));
  if (missingScopes.length === 0) return;
  throw new AppError('insufficient_scope', `The access token lacks the scope ${missingScopes.join(' ')}.`, {
    details: { missingScopes, scopes: [...scopes, ...missingScopes] },
  });
}

/** Names of the tools that a message, or the messages of a batch, call. */
function calledTools(body: unknown): string[] {
  return [body].flat().flatMap((message) => {
    const { method, params } = Object(message) as { method?: unknown; params?: unknown };
    const { name } = Object(params) as { name?: unknown };
    return method === 'tools/call' && typeof name === 'string' ? [name] : [];
  });
}
