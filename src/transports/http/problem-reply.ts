import { type AppError, toProblem } from '../../kernel/errors.ts';
import type { Answer } from './answer.ts';

/** The answer of an error: RFC 9457 problem details, with the headers that go with its status. */
export function problemAnswer(
  error: AppError,
  requestId: string,
  docsUrl: string,
  headers: readonly string[] = [],
): Answer {
  return {
    status: error.status,
    contentType: 'application/problem+json',
    body: JSON.stringify(toProblem(error, requestId, docsUrl)),
    headers: [...headers, ...headersOf(error)],
  };
}

function headersOf(error: AppError): string[] {
  const headers: string[] = [];
  const seconds = error.details['retryAfterSeconds'];
  // `Retry-After` counts whole seconds; none would invite the very retry that was just refused.
  if (typeof seconds === 'number' && Number.isFinite(seconds)) {
    headers.push('Retry-After', String(Math.max(1, Math.ceil(seconds))));
  }
  return headers;
}
