import type { AppError } from '../../kernel/errors.ts';

/** A resource that OAuth access tokens are made for, as clients discover it (RFC 9728). */
export interface ProtectedResource {
  /** Where its metadata is. */
  readonly metadataUrl: string;
  /** Scopes that everything on offer there takes together. */
  readonly scopes: readonly string[];
}

/**
 * The `WWW-Authenticate` of a refusal, or null where it needs none: how to get in after 401, and what to ask for after
 * `insufficient_scope` (RFC 6750, section 3.1; RFC 9728, section 5.1). `given`: a credential came along and was refused.
 */
export function bearerChallenge(
  error: AppError,
  { resource, given }: { resource: ProtectedResource | null; given: boolean },
): string | null {
  const parameters: string[] = [];
  if (error.code === 'insufficient_scope') {
    parameters.push('error="insufficient_scope"', ...scopeOf(error.details['scopes']));
  } else if (error.status === 401) {
    if (resource !== null && given) parameters.push('error="invalid_token"');
    if (resource !== null) parameters.push(...scopeOf(resource.scopes));
  } else return null;
  if (resource !== null) parameters.push(`resource_metadata="${resource.metadataUrl}"`);
  return parameters.length === 0 ? 'Bearer' : `Bearer ${parameters.join(', ')}`;
}

function scopeOf(scopes: unknown): string[] {
  return Array.isArray(scopes) && scopes.length > 0 ? [`scope="${scopes.join(' ')}"`] : [];
}
