import type { Tool } from '@modelcontextprotocol/server';
import { adminPermissions, type Principal, tenantPermissions } from '../../kernel/context.ts';
import { inputSchema, type Operation, outputSchema, toolName } from '../../kernel/operation.ts';

/** The tools one caller may use: what `tools/list` answers, and what a name in `tools/call` stands for. */
export interface ToolSet {
  readonly tools: Tool[];
  readonly operations: ReadonlyMap<string, Operation>;
}

/** Under which keys of `_meta` a tool and its answers say what the protocol has no field for. */
export const metaKeys = { cost: 'iora/cost', limits: 'iora/limits', problem: 'iora/problem' } as const;

/**
 * Answers which tools a principal may use: operations offered over MCP whose permission it holds and that take its
 * kind, the same rule by which `invoke` refuses. Throws at once where an operation cannot be a tool: two of one name,
 * or a schema that is no object.
 */
export function createToolSets(operations: readonly Operation[]): (principal: Principal) => ToolSet {
  const entries = operations
    .filter((operation) => operation.transports.includes('mcp'))
    .map((operation) => ({ operation, tool: describeTool(operation) }));
  if (new Set(entries.map(({ tool }) => tool.name)).size < entries.length) throw new Error('two tools share a name');

  // Needs no eviction: 4 kinds of principal times 2^7 sets of permissions are all the keys there can be.
  const sets = new Map<string, ToolSet>();
  return function toolsFor(principal) {
    const held = permissions.filter((permission) => principal.permissions.has(permission));
    const key = `${principal.kind} ${held.join(' ')}`;
    let set = sets.get(key);
    if (set === undefined) {
      const usable = entries.filter(({ operation }) => mayUse(operation, principal));
      set = {
        tools: usable.map(({ tool }) => tool),
        operations: new Map(usable.map(({ operation, tool }) => [tool.name, operation])),
      };
      sets.set(key, set);
    }
    return set;
  };
}

const permissions = [...tenantPermissions, ...adminPermissions];

function mayUse(operation: Operation, principal: Principal): boolean {
  if (operation.callers !== undefined && !operation.callers.includes(principal.kind)) return false;
  return operation.permission === null || principal.permissions.has(operation.permission);
}

function describeTool(operation: Operation): Tool {
  const name = toolName(operation);
  const title = operation.summary.replace(/\.$/, '');
  return {
    name,
    title,
    description: `${title}. ${costWords(operation.cost)}`,
    inputSchema: objectSchema(name, inputSchema(operation)),
    outputSchema: objectSchema(name, outputSchema(operation)),
    annotations: {
      title,
      readOnlyHint: operation.readOnly,
      idempotentHint: operation.idempotent,
      // An operation does not say whether a write only adds, so every write is announced as one that may destroy.
      destructiveHint: !operation.readOnly,
      // `tools:*` are the operations that ask the markets; all others stay within the caller's own account.
      openWorldHint: operation.permission?.startsWith('tools:') ?? false,
    },
    _meta: { [metaKeys.cost]: operation.cost },
  };
}

function costWords(cost: number): string {
  if (cost === 0) return 'Free.';
  return `Costs ${cost} ${cost === 1 ? 'unit' : 'units'} of the rate limit and the monthly quota.`;
}

/** Revisions up to 2025-11-25 allow only objects as arguments and as structured content. */
function objectSchema(name: string, schema: Record<string, unknown>): Tool['inputSchema'] {
  if (schema['type'] !== 'object') throw new Error(`tool ${name}: input and output must be objects`);
  return { ...schema, type: 'object' };
}
