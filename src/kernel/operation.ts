import { z } from 'zod';
import { type CursorField, type CursorValues, decodeCursor } from '../lib/cursor.ts';
import type { Context, Permission, Principal, TransportName } from './context.ts';
import type { Endpoint } from './endpoint.ts';
import { AppError } from './errors.ts';
import type { Job } from './job.ts';

/**
 * One thing the product does. The HTTP route, the MCP tool, the CLI command, the OpenAPI entry and the reference
 * pages are derived from it; `invoke` is the only way to run it.
 */
export interface Operation<Input = unknown, Output = unknown> {
  /** `keys.create`: also the command `iora keys create`. */
  readonly name: string;
  /** Names that differ from the derived ones: the MCP tool. */
  readonly names?: { readonly tool?: string };
  /** Its parameters are the positional arguments of the command, also where it is not offered over HTTP. */
  readonly route: { readonly method: 'GET' | 'POST' | 'PATCH' | 'DELETE'; readonly path: string };
  readonly summary: string;
  /** What the caller must hold. `null`: any valid credential. */
  readonly permission: Permission | null;
  /** Credentials that may call it; all kinds where absent. */
  readonly callers?: readonly Principal['kind'][];
  /** On the command line `operator` runs as the operator of the installation and `tenant` as a person that is named. */
  readonly audience: 'tenant' | 'operator';
  readonly transports: readonly TransportName[];
  /** Units charged against rate limit and quota; 0 is not metered. */
  readonly cost: number;
  readonly input: z.ZodType<Input>;
  readonly output: z.ZodType<Output>;
  readonly answer: 'json' | 'page';
  /** HTTP status of success, 200 where absent. */
  readonly status?: number;
  /** Output fields in which two identical calls may differ. */
  readonly volatile?: readonly string[];
  readonly idempotent: boolean;
  readonly readOnly: boolean;
  /** What the audit row of a write says; required for every write. */
  readonly audit?: { readonly action: string; readonly resourceType: string };
  /** Refusals that need no work (an unknown symbol); thrown before anything is charged. */
  readonly precheck?: (input: Input) => void;
  /** What of the input the usage row keeps (the symbol asked for). */
  readonly meterSymbol?: (input: Input) => string | null;
  /** An input that the operation accepts, for the reference pages and the tests derived from it. */
  readonly example: Record<string, unknown>;
  readonly run: (context: Context, input: Input) => Promise<Output>;
}

/** What one folder of `features/` offers. */
export interface Feature {
  readonly name: string;
  readonly operations: readonly Operation[];
  readonly endpoints?: readonly Endpoint[];
  readonly jobs?: readonly Job[];
}

/** Checks the parts of an operation that types cannot, and erases its input and output types for the lists. */
export function defineOperation<Input, Output>(operation: Operation<Input, Output>): Operation {
  if (operation.readOnly === (operation.audit !== undefined)) {
    throw new Error(`${operation.name}: a write needs an audit entry, and only a write`);
  }
  if (!/^[a-z]+\.[a-z_]+$/.test(operation.name)) throw new Error(`${operation.name}: must be noun.verb`);
  return operation as unknown as Operation;
}

/** The MCP tool name of an operation: its own, else `noun_verb`. */
export function toolName(operation: Operation): string {
  return operation.names?.tool ?? operation.name.replace('.', '_');
}

/** JSON Schema (2020-12) of what callers send. */
export function inputSchema(operation: Operation): Record<string, unknown> {
  return z.toJSONSchema(operation.input, { io: 'input' }) as Record<string, unknown>;
}

/** JSON Schema (2020-12) of what callers get. */
export function outputSchema(operation: Operation): Record<string, unknown> {
  return z.toJSONSchema(operation.output, { io: 'output' }) as Record<string, unknown>;
}

/** A page of a list, as every list answers. */
export function pageOf<Item extends z.ZodType>(item: Item) {
  return z.object({ items: z.array(item), nextCursor: z.string().nullable() });
}

/** Items a page holds when the caller names no number, and at most. */
const PAGE_SIZE_DEFAULT = 50;
export const PAGE_SIZE_MAX = 100;

/** Longest cursor accepted: well above any we make. */
const CURSOR_LENGTH_MAX = 512;

/** The paging part of a list's input. Query strings carry numbers as text, so text is coerced. */
export const pageInput = {
  limit: z.coerce.number().int().min(1).max(PAGE_SIZE_MAX).default(PAGE_SIZE_DEFAULT).describe('Items per page'),
  cursor: z.string().min(1).max(CURSOR_LENGTH_MAX).optional().describe('nextCursor of the page before'),
};

/** Where the page before ended. Throws `invalid_input` for a cursor that was not handed out by a list of this order. */
export function readCursor<const Shape extends readonly CursorField[]>(
  cursor: string | undefined,
  shape: Shape,
): CursorValues<Shape> | undefined {
  const values = cursor === undefined ? undefined : decodeCursor(cursor, shape);
  if (values !== null) return values;
  throw new AppError('invalid_input', 'cursor is not one that was handed out.', {
    details: { issues: [{ path: 'cursor', message: 'not one that was handed out' }] },
  });
}
