import type { Database, Transaction } from '../platform/postgres.ts';
import type { AuditNote, Call, Context, Principal } from './context.ts';
import { AppError, toAppError, unavailable } from './errors.ts';
import type { Operation } from './operation.ts';

/** One limit as it stood when a call was decided. */
export interface LimitState {
  readonly policy: 'minute' | 'month' | 'key-minute' | 'key-month' | 'service';
  readonly limit: number;
  readonly remaining: number;
  readonly windowSeconds: number;
  /** Seconds until the whole limit is free again. */
  readonly resetSeconds: number;
}

export type AdmissionDecision =
  | { readonly admitted: true; readonly limits: readonly LimitState[] }
  | { readonly admitted: false; readonly limits: readonly LimitState[]; readonly error: AppError };

/** Rate limits and quota: decides whether a call may cost what it costs, all limits or none. */
export interface Admission {
  admit(principal: Principal, cost: number): AdmissionDecision | Promise<AdmissionDecision>;
  /** Why a call that costs nothing is refused: such calls are bounded too, so that nobody can ask without end. */
  refuseUnmetered(principal: Principal): AppError | null;
  /**
   * Gives quota back for a call that was admitted at that moment (Unix milliseconds) and failed, in the month it was taken
   * from. The rate window keeps it: the attempt was made.
   */
  refund(principal: Principal, cost: number, admittedAtMs: number): void;
}

/** One metered call, as the usage table keeps it. */
export interface UsageEvent {
  readonly createdAtMs: number;
  readonly principal: Principal;
  readonly operation: Operation;
  readonly symbol: string | null;
  readonly statusCode: number;
  readonly responseTimeMs: number;
  readonly errorCode: string | null;
  readonly cost: number;
  readonly requestId: string;
}

/** Keeps usage events until they are in the database. */
export interface Meter {
  /** False when so many events wait that no further call can be recorded; the call is then refused. */
  hasRoom(): boolean;
  record(event: UsageEvent): void;
}

export interface AuditEntry extends AuditNote {
  readonly call: Call;
  readonly action: string;
  readonly resourceType: string;
  readonly outcome: 'succeeded' | 'refused' | 'failed';
  readonly errorCode: string | null;
}

/** The audit trail: appends inside the change's own transaction, or in one of its own for what was refused or failed. */
export interface AuditTrail {
  append(tx: Transaction, entry: AuditEntry): Promise<void>;
  appendAlone(entry: AuditEntry): Promise<void>;
}

export interface InvokeParts {
  readonly database: Pick<Database, 'write'>;
  readonly admission: Admission;
  readonly meter: Meter;
  readonly audit: AuditTrail;
  readonly wallClockMs: () => number;
}

export type Outcome =
  | { readonly ok: true; readonly status: number; readonly output: unknown; readonly limits: readonly LimitState[] }
  | { readonly ok: false; readonly error: AppError; readonly limits: readonly LimitState[] };

export type Invoke = (operation: Operation, call: Call, rawInput: unknown) => Promise<Outcome>;

const NO_LIMITS: readonly LimitState[] = [];

/**
 * The only way into an operation: parse, permission, limit and quota, run (a write in one transaction with its audit
 * row), shape, meter. Never throws: every refusal and failure is an Outcome.
 */
export function createInvoke(parts: InvokeParts): Invoke {
  return async function invoke(operation, call, rawInput) {
    const startedAt = performance.now();
    let input: unknown;
    try {
      input = parseInput(operation, rawInput);
      authorise(operation, call.principal);
      operation.precheck?.(input);
      const refusal = operation.cost === 0 ? parts.admission.refuseUnmetered(call.principal) : null;
      if (refusal !== null) throw refusal;
      if (operation.cost > 0 && !parts.meter.hasRoom()) {
        throw unavailable('Usage cannot be recorded at the moment, so no metered call is accepted.');
      }
    } catch (thrown) {
      const error = toAppError(thrown);
      await auditFailure(parts, operation, call, error, input);
      return { ok: false, error, limits: NO_LIMITS };
    }

    if (operation.cost === 0) return run(parts, operation, call, input, NO_LIMITS);

    let outcome: Outcome;
    let admitted = false;
    const admittedAtMs = parts.wallClockMs();
    try {
      const pending = parts.admission.admit(call.principal, operation.cost);
      const decision = pending instanceof Promise ? await pending : pending;
      admitted = decision.admitted;
      outcome = decision.admitted
        ? await run(parts, operation, call, input, decision.limits)
        : { ok: false, error: decision.error, limits: decision.limits };
    } catch (thrown) {
      outcome = { ok: false, error: toAppError(thrown), limits: NO_LIMITS };
    }
    if (admitted && !outcome.ok) parts.admission.refund(call.principal, operation.cost, admittedAtMs);
    parts.meter.record({
      createdAtMs: parts.wallClockMs(),
      principal: call.principal,
      operation,
      symbol: operation.meterSymbol?.(input) ?? null,
      statusCode: outcome.ok ? outcome.status : outcome.error.status,
      responseTimeMs: performance.now() - startedAt,
      errorCode: outcome.ok ? null : outcome.error.code,
      cost: outcome.ok ? operation.cost : 0,
      requestId: call.requestId,
    });
    return outcome;
  };
}

function parseInput(operation: Operation, rawInput: unknown): unknown {
  const parsed = operation.input.safeParse(rawInput);
  if (parsed.success) return parsed.data;
  const issues = parsed.error.issues.slice(0, ISSUES_MAX).map((issue) => ({
    path: issue.path.map(String).join('.').slice(0, PATH_LENGTH_MAX),
    message: issue.message.slice(0, PATH_LENGTH_MAX),
  }));
  const lines = issues.map(({ path, message }) => (path === '' ? message : `${path}: ${message}`));
  throw new AppError('invalid_input', lines.join('; ').slice(0, MESSAGE_LENGTH_MAX), { details: { issues } });
}

/** Enough to mend an input by; hostile inputs can fail in thousands of places. */
const ISSUES_MAX = 10;
const MESSAGE_LENGTH_MAX = 1_000;
const PATH_LENGTH_MAX = 200;

function authorise(operation: Operation, principal: Principal): void {
  if (operation.callers && !operation.callers.includes(principal.kind)) {
    throw new AppError('forbidden', `This is for ${operation.callers.map(callerWords).join(' or ')}.`);
  }
  if (principal.key?.leaked === true) {
    throw new AppError('forbidden', 'This key was found in public and cut off. Rotate it, and use the new secret.');
  }
  if (principal.scopes !== null && operation.permission === 'keys:write') {
    throw new AppError(
      'forbidden',
      'An access token makes and changes no API keys: they would outlive it. Sign in instead.',
    );
  }
  if (operation.permission !== null && !principal.permissions.has(operation.permission)) {
    // A token may be issued anew for more; what the person behind it may not do stays forbidden.
    if (principal.scopes?.has(operation.permission) === false) {
      throw new AppError('insufficient_scope', `The access token lacks the scope ${operation.permission}.`, {
        details: { missingScopes: [operation.permission], scopes: [...principal.scopes, operation.permission] },
      });
    }
    throw new AppError('forbidden', `This needs the permission ${operation.permission}.`, {
      details: { requiredPermission: operation.permission },
    });
  }
}

function callerWords(kind: Principal['kind']): string {
  return {
    api_key: 'API keys',
    session: 'signed-in sessions',
    service: 'services that sign their calls',
    operator: 'the operator',
  }[kind];
}

async function run(
  parts: InvokeParts,
  operation: Operation,
  call: Call,
  input: unknown,
  limits: readonly LimitState[],
): Promise<Outcome> {
  try {
    const output = operation.readOnly
      ? await operation.run({ ...call, tx: null, audit: {}, afterCommit: refuseAfterCommit }, input)
      : await runWrite(parts, operation, call, input);
    return { ok: true, status: operation.status ?? 200, output: operation.output.parse(output), limits };
  } catch (thrown) {
    const error = toAppError(thrown);
    await auditFailure(parts, operation, call, error, input);
    return { ok: false, error, limits };
  }
}

function refuseAfterCommit(): never {
  throw new Error('a read-only operation has nothing to commit');
}

async function runWrite(parts: InvokeParts, operation: Operation, call: Call, input: unknown): Promise<unknown> {
  const { audit } = operation;
  if (audit === undefined) throw new Error(`${operation.name} writes without an audit entry`);
  // A transaction may be tried again after a serialization failure, so what it collected starts afresh each time.
  const [output, afterCommit] = await parts.database.write(call.principal, async (tx) => {
    const work: (() => Promise<void> | void)[] = [];
    const context: Context = { ...call, tx, audit: {}, afterCommit: (item) => void work.push(item) };
    const result = await operation.run(context, input);
    // What cannot be answered is not kept either.
    operation.output.parse(result);
    await parts.audit.append(tx, { ...context.audit, call, ...audit, outcome: 'succeeded', errorCode: null });
    return [result, work] as const;
  });
  for (const work of afterCommit) await work();
  return output;
}

/** The audit row of a write that was refused or failed. Its own failure must not hide the answer. */
async function auditFailure(
  parts: InvokeParts,
  operation: Operation,
  call: Call,
  error: AppError,
  input: unknown,
): Promise<void> {
  if (operation.audit === undefined) return;
  const outcome = error.status >= 500 ? 'failed' : 'refused';
  const id = typeof input === 'object' && input !== null && 'id' in input ? input.id : undefined;
  await parts.audit.appendAlone({
    ...(typeof id === 'string' ? { resourceId: id } : {}),
    call,
    ...operation.audit,
    outcome,
    errorCode: error.code,
  });
}
