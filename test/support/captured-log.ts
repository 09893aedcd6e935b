// A log that keeps what it is told, errors with everything that hangs on them: stricter than the real one, which drops
// what may hold a row's values.
import type { Log, LogFields } from '../../src/platform/log.ts';

export interface CapturedLog extends Log {
  /** Every line so far, as text. */
  lines(): readonly string[];
  /** Lines with that message. */
  named(message: string): readonly string[];
}

/** Depth to which causes and fields are followed. */
const DEPTH_MAX = 6;

/** An empty log. */
export function captureLog(): CapturedLog {
  const lines: { message: string; text: string }[] = [];
  const write = (level: string) => (fields: LogFields, message: string) => {
    lines.push({ message, text: `${level} ${message} ${JSON.stringify(plain(fields, DEPTH_MAX))}` });
  };
  return {
    debug: write('debug'),
    info: write('info'),
    warn: write('warn'),
    error: write('error'),
    flush: () => undefined,
    lines: () => lines.map((line) => line.text),
    named: (message) => lines.filter((line) => line.message === message).map((line) => line.text),
  };
}

function plain(value: unknown, depth: number): unknown {
  if (typeof value === 'bigint') return String(value);
  if (typeof value !== 'object' || value === null || depth === 0) return value;
  if (Array.isArray(value)) return value.map((item) => plain(item, depth - 1));
  const names = value instanceof Error ? Object.getOwnPropertyNames(value) : Object.keys(value);
  return Object.fromEntries(names.map((name) => [name, plain(Reflect.get(value, name), depth - 1)]));
}
