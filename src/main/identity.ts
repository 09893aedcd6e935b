import { createIdentity, type Identity, type IdentityParts } from '../features/tenants/index.ts';
import { clerkIssuerOf } from '../lib/clerk-publishable-key.ts';
import type { Config } from '../platform/config.ts';
import { hasIdentityProvider } from './secrets.ts';

/** The providers that the configuration names, null where it names none. */
export function openIdentity(
  config: Config,
  parts: Pick<IdentityParts, 'sessions' | 'log' | 'monotonicMs'>,
): Identity | null {
  const { PUBLIC_URL: publicUrl } = config;
  // Required beside a provider, which the configuration checks.
  if (publicUrl === undefined || !hasIdentityProvider(config)) return null;
  return createIdentity({ ...parts, publicUrl, clerk: clerkSettings(config, publicUrl), oidc: oidcSettings(config) });
}

function clerkSettings(config: Config, publicUrl: string): IdentityParts['clerk'] {
  const { CLERK_PUBLISHABLE_KEY: publishableKey } = config;
  const issuer = publishableKey === undefined ? null : clerkIssuerOf(publishableKey);
  if (publishableKey === undefined || issuer === null) return null;
  return {
    issuer,
    publishableKey,
    secretKey: config.CLERK_SECRET_KEY,
    jwtKey: config.CLERK_JWT_KEY,
    apiUrl: config.CLERK_API_URL,
    authorizedParties: config.CLERK_AUTHORIZED_PARTIES ?? [new URL(publicUrl).origin],
  };
}

function oidcSettings(config: Config): IdentityParts['oidc'] {
  if (config.OIDC_ISSUER === undefined) return null;
  return {
    issuer: config.OIDC_ISSUER,
    audiences: config.OIDC_AUDIENCE ?? [],
    organizationClaim: config.OIDC_ORG_CLAIM,
    roleClaim: config.OIDC_ROLE_CLAIM,
  };
}
