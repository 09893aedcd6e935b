import { DatabaseUnavailableError } from '../platform/postgres.ts';

/** The one table of public errors. Each code has a section in docs/reference/errors.md; a test holds the two lists equal. */
export const errorTable = {
  invalid_input: { status: 400, title: 'The input does not fit the schema', retryable: false },
  malformed_request: { status: 400, title: 'The request could not be read', retryable: false },
  unauthenticated: { status: 401, title: 'A valid credential is required', retryable: false },
  quota_exceeded: { status: 402, title: 'The monthly quota is used up', retryable: false },
  forbidden: { status: 403, title: 'The credential does not allow this', retryable: false },
  insufficient_scope: { status: 403, title: 'The access token was not issued for this', retryable: false },
  not_found: { status: 404, title: 'Nothing is here', retryable: false },
  unknown_symbol: { status: 404, title: 'The symbol is not known', retryable: false },
  method_not_allowed: { status: 405, title: 'The method is not offered here', retryable: false },
  not_acceptable: { status: 406, title: 'None of the accepted media types can be produced', retryable: false },
  request_timeout: { status: 408, title: 'The request took too long to arrive', retryable: true },
  already_exists: { status: 409, title: 'It exists already', retryable: false },
  key_limit_reached: { status: 409, title: 'The maximum number of API keys is reached', retryable: false },
  rotation_in_progress: { status: 409, title: 'Too many secrets of this key work already', retryable: false },
  payload_too_large: { status: 413, title: 'The request body is too large', retryable: false },
  uri_too_long: { status: 414, title: 'The request path is too long', retryable: false },
  unsupported_media_type: { status: 415, title: 'The media type is not supported', retryable: false },
  rate_limited: { status: 429, title: 'Too many requests', retryable: true },
  headers_too_large: { status: 431, title: 'The request headers are too large', retryable: false },
  internal: { status: 500, title: 'Something failed on our side', retryable: true },
  upstream_unavailable: { status: 503, title: 'The market sources cannot answer', retryable: true },
  unavailable: { status: 503, title: 'The service cannot answer at the moment', retryable: true },
} as const satisfies Record<string, { status: number; title: string; retryable: boolean }>;

export type ErrorCode = keyof typeof errorTable;

/** What a caller sees beside the code: plain JSON, never a secret, never another tenant's data. */
export type ErrorDetails = Readonly<Record<string, unknown>>;

/**
 * A failure with a public face. Code, message and details go to the caller; `cause` goes to the log only.
 * Details named `retryAfterSeconds` become the `Retry-After` header.
 */
export class AppError extends Error {
  readonly code: ErrorCode;
  readonly details: ErrorDetails;

  constructor(code: ErrorCode, message?: string, options: { details?: ErrorDetails; cause?: unknown } = {}) {
    super(message ?? errorTable[code].title, options.cause === undefined ? {} : { cause: options.cause });
    this.name = 'AppError';
    this.code = code;
    this.details = options.details ?? {};
  }

  /** HTTP status of the code. */
  get status(): number {
    return errorTable[this.code].status;
  }
}

/** Seconds a caller is asked to wait when a dependency is away; long enough for a restart, short enough to notice it. */
const DEPENDENCY_RETRY_AFTER_SECONDS = 2;

/** An `unavailable` refusal that tells the caller when to come back. */
export function unavailable(message: string, cause?: unknown): AppError {
  return new AppError('unavailable', message, {
    details: { retryAfterSeconds: DEPENDENCY_RETRY_AFTER_SECONDS },
    cause,
  });
}

/** Any thrown value as the one public error it becomes: an AppError stays, an unreachable database is
 * `unavailable`, all else is `internal` with the original as cause. */
export function toAppError(thrown: unknown): AppError {
  if (thrown instanceof AppError) return thrown;
  if (thrown instanceof DatabaseUnavailableError)
    return unavailable('The database cannot answer at the moment.', thrown);
  return new AppError('internal', undefined, { cause: thrown });
}

/** RFC 9457 problem details, the body of every refusal on every transport. */
export interface Problem {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly code: ErrorCode;
  readonly detail: string;
  readonly requestId: string;
  readonly retryable: boolean;
  readonly [extension: string]: unknown;
}

/**
 * The problem body of an error. `type` is the reference page of the code below `docsUrl`
 * (the server's public address; relative when none is configured).
 */
export function toProblem(error: AppError, requestId: string, docsUrl = ''): Problem {
  const entry = errorTable[error.code];
  return {
    ...error.details,
    type: `${docsUrl}/docs/errors#${error.code}`,
    title: entry.title,
    status: entry.status,
    code: error.code,
    detail: error.message,
    requestId,
    retryable: entry.retryable,
  };
}
