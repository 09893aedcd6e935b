import { destination, pino } from 'pino';

/** Structured log on standard error, one JSON object a line; standard output belongs to what a command answers. */
export interface Log {
  debug(fields: LogFields, message: string): void;
  info(fields: LogFields, message: string): void;
  warn(fields: LogFields, message: string): void;
  error(fields: LogFields, message: string): void;
  /** Writes what is buffered; call before the process ends. */
  flush(): void;
}

export type LogFields = Readonly<Record<string, unknown>>;

/** Bytes gathered before a write: a busy server makes one system call for many lines. */
const BUFFER_BYTES = 8_192;
/** A quiet server's lines appear at least this often. */
const FLUSH_INTERVAL_MS = 250;
/** Held while whoever reads the log stands still; what comes beyond is dropped rather than the memory filled. */
const HELD_BYTES_MAX = 16 * 1024 * 1024;

/** Opens the log. Errors are written under `err` with type, message, stack and causes, but never statement values. */
export function openLog(level: string): Log {
  const out = destination({ dest: 2, sync: false, minLength: BUFFER_BYTES, maxLength: HELD_BYTES_MAX });
  const logger = pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { err: describeError },
    },
    out,
  );
  setInterval(() => out.flush(), FLUSH_INTERVAL_MS).unref();
  return {
    debug: (fields, message) => logger.debug(fields, message),
    info: (fields, message) => logger.info(fields, message),
    warn: (fields, message) => logger.warn(fields, message),
    error: (fields, message) => logger.error(fields, message),
    flush: () => out.flushSync(),
  };
}

/** Causes followed at most; a cycle must not hang the log. */
const CAUSES_MAX = 5;

function describeError(error: unknown, depth = 0): unknown {
  if (!(error instanceof Error)) return String(error);
  // PostgreSQL's `detail`, `where` and `internalQuery` carry values of rows: only its code and message are kept.
  return {
    type: error.name,
    message: error.message,
    ...('code' in error ? { code: error.code } : {}),
    stack: error.stack,
    ...(error.cause !== undefined && depth < CAUSES_MAX ? { cause: describeError(error.cause, depth + 1) } : {}),
  };
}
