import { type AppError, type Problem, toProblem } from '../../kernel/errors.ts';
import type { Operation } from '../../kernel/operation.ts';
import { type Flag, flagsOf } from './flags.ts';
import { printable } from './render.ts';

/** A refusal for people: one line that names flags as they are written here, and the code. */
export function refusalLine(error: AppError, operation: Operation | null): string {
  const issues = issuesOf(error);
  const flags = operation === null ? [] : flagsOf(operation);
  const reason =
    issues.length === 0
      ? error.message
      : [...new Set(issues.map(({ path, message }) => `${label(flags, path)}${message}`))].join('; ');
  return `${printable(reason.replace(/\s+/g, ' '))} (${error.code})`;
}

/** A refusal for programs: the problem that every transport answers, as one line of JSON. */
export function refusalJson(error: AppError, requestId: string): string {
  return JSON.stringify(toProblem(error, requestId) satisfies Problem);
}

function issuesOf(error: AppError): readonly { path: string; message: string }[] {
  const issues = error.details['issues'];
  return Array.isArray(issues) ? issues : [];
}

/** What the path is about as it is written here: a flag takes its whole value, so what lies deeper is left away. */
function label(flags: readonly Flag[], path: string): string {
  if (path === '') return '';
  const [property = ''] = path.split('.');
  const flag = flags.find((candidate) => candidate.property === property);
  if (flag === undefined) return `${path}: `;
  return flag.positional ? `<${flag.word}>: ` : `--${flag.word}: `;
}
