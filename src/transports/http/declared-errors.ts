import type { ErrorCode } from '../../kernel/errors.ts';
import type { Operation } from '../../kernel/operation.ts';
import { pathParameters } from './router-path.ts';

/** What any request may be answered with, whatever its route. */
export const commonErrors: readonly ErrorCode[] = [
  'malformed_request',
  'request_timeout',
  'uri_too_long',
  'headers_too_large',
  'internal',
  'unavailable',
];

/** The error codes an operation may answer with over HTTP, derived from what it declares about itself. */
export function declaredErrors(operation: Operation): ErrorCode[] {
  const { method, path } = operation.route;
  const codes: ErrorCode[] = [...commonErrors, 'invalid_input', 'unauthenticated', 'rate_limited'];
  if (operation.permission !== null || operation.callers !== undefined) codes.push('forbidden');
  if (operation.permission !== null) codes.push('insufficient_scope');
  if (method === 'POST' || method === 'PATCH') codes.push('payload_too_large', 'unsupported_media_type');
  if (operation.cost > 0) codes.push('quota_exceeded');
  // A write may name something that is not there in its body as well as in its path.
  if (pathParameters(path).length > 0 || !operation.readOnly) codes.push('not_found');
  // What is made anew can meet its own kind, or the bound on it.
  if (operation.status === 201) codes.push('already_exists', 'key_limit_reached', 'rotation_in_progress');
  if (operation.meterSymbol !== undefined) codes.push('unknown_symbol', 'upstream_unavailable');
  return codes;
}
