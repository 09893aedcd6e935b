import type { Endpoint } from '../../kernel/endpoint.ts';
import type { Operation } from '../../kernel/operation.ts';
import { scopesOfTools } from './required-scopes.ts';

const METADATA_PATH = '/.well-known/oauth-protected-resource';
/** Issuers and scopes change with a restart at most. */
const METADATA_CACHE_CONTROL = 'public, max-age=3600';

export interface ProtectedResourceParts {
  /** Address under which callers reach the server, without a slash at its end. */
  readonly publicUrl: string;
  /** Issuers whose access tokens are accepted. */
  readonly issuers: readonly string[];
  readonly operations: readonly Operation[];
}

/**
 * What an MCP client reads to find out where to get an access token for /mcp (RFC 9728, section 3): its metadata, at the
 * path of that resource and, for clients that look only there, at the root.
 */
export function createProtectedResource(parts: ProtectedResourceParts): {
  readonly metadataUrl: string;
  readonly scopes: readonly string[];
  readonly endpoints: readonly Endpoint[];
} {
  const origin = new URL(parts.publicUrl).origin;
  const resource = `${parts.publicUrl}/mcp`;
  const ofResource = `${METADATA_PATH}${new URL(resource).pathname}`;
  const scopes = scopesOfTools(parts.operations);
  const body = JSON.stringify({
    resource,
    authorization_servers: parts.issuers,
    scopes_supported: scopes,
    bearer_methods_supported: ['header'],
    resource_name: 'IORA',
    resource_documentation: `${parts.publicUrl}/docs`,
  });
  return {
    metadataUrl: `${origin}${ofResource}`,
    scopes,
    endpoints: [ofResource, METADATA_PATH].map((path) => ({
      method: 'GET',
      path,
      summary: 'Where to get an access token for /mcp (RFC 9728)',
      answer: () => ({
        status: 200,
        contentType: 'application/json',
        body,
        headers: { 'cache-control': METADATA_CACHE_CONTROL },
      }),
    })),
  };
}
