import type { Principal } from '../../kernel/context.ts';
import { unavailable } from '../../kernel/errors.ts';
import type { Log } from '../../platform/log.ts';
import { createSigningKeys, type SigningKeys, SigningKeysUnavailableError } from '../../platform/signing-keys.ts';
import { unauthenticated } from '../keys/index.ts';
import {
  createClerkClientSource,
  createClerkIdentity,
  createClerkKeyFetch,
  opaqueTokenRefusal,
} from './clerk-identity.ts';
import { createOidcIdentity, createOidcKeyFetch } from './oidc-identity.ts';
import type { Sessions } from './sessions.ts';
import { openUnverified, type UnverifiedToken } from './token-claims.ts';

/** Whoever can vouch for people here. */
export interface Identity {
  /**
   * The principal behind a token of any of the providers. Throws AppError `unauthenticated`, the same for whatever is wrong
   * with it, and `unavailable` while the provider's keys cannot be fetched.
   */
  authenticate(token: string): Promise<Principal>;
  /** The issuers whose OAuth access tokens are accepted: Clerk's only beside its secret key. */
  readonly accessTokenIssuers: readonly string[];
  /** Begins to fetch the keys of the providers, without being waited for. */
  prime(): void;
}

export interface ClerkSettings {
  readonly issuer: string;
  readonly publishableKey: string;
  readonly secretKey: string | undefined;
  readonly jwtKey: string | undefined;
  readonly apiUrl: string;
  readonly authorizedParties: readonly string[];
}

export interface OidcSettings {
  readonly issuer: string;
  readonly audiences: readonly string[];
  readonly organizationClaim: string;
  readonly roleClaim: string;
}

export interface IdentityParts {
  /** Address under which callers reach this server; OAuth tokens are made for its /mcp. */
  readonly publicUrl: string;
  readonly clerk: ClerkSettings | null;
  readonly oidc: OidcSettings | null;
  readonly sessions: Sessions;
  readonly log: Log;
  readonly monotonicMs: () => number;
}

/** Builds the providers that are configured. */
export function createIdentity(parts: IdentityParts): Identity {
  const { sessions, log, monotonicMs } = parts;
  const resource = `${parts.publicUrl}/mcp`;
  const stores: SigningKeys[] = [];

  function keysOf(issuer: string, fetchKeys: (signal: AbortSignal) => Promise<unknown>): SigningKeys {
    const keys = createSigningKeys({ issuer, fetchKeys, log, monotonicMs });
    stores.push(keys);
    return keys;
  }

  const clerk = parts.clerk && openClerk(parts.clerk);

  function openClerk({ issuer, jwtKey, publishableKey, secretKey, apiUrl, authorizedParties }: ClerkSettings) {
    const client = secretKey === undefined ? null : createClerkClientSource({ publishableKey, secretKey, apiUrl });
    const keys = jwtKey ?? (client && keysOf(issuer, createClerkKeyFetch(client)));
    if (keys === null) throw new Error('there is nothing to verify tokens of Clerk with');
    return createClerkIdentity({
      issuer,
      client,
      keys,
      authorizedParties,
      audience: parts.publicUrl,
      resource,
      sessions,
    });
  }

  const oidc =
    parts.oidc &&
    createOidcIdentity({
      ...parts.oidc,
      keys: keysOf(parts.oidc.issuer, createOidcKeyFetch(parts.oidc.issuer)),
      resource,
      sessions,
    });
  const providers = [oidc, clerk].filter((provider) => provider !== null);

  /** By what the token says of itself: whoever it names then verifies that as well. */
  function providerOf({ payload }: UnverifiedToken) {
    return providers.find(({ issuer }) => issuer === payload.iss);
  }

  return {
    accessTokenIssuers: [oidc, parts.clerk?.secretKey === undefined ? null : clerk].flatMap(
      (provider) => provider?.issuer ?? [],
    ),
    async authenticate(text) {
      const token = openUnverified(text);
      const provider = token === null ? undefined : providerOf(token);
      if (token === null || provider === undefined) {
        throw (clerk === null ? null : opaqueTokenRefusal(text)) ?? unauthenticated();
      }
      try {
        return await provider.authenticate(token);
      } catch (error) {
        if (!(error instanceof SigningKeysUnavailableError)) throw error;
        throw unavailable(
          'The identity provider cannot be reached at the moment, so the token cannot be judged.',
          error,
        );
      }
    },
    prime() {
      for (const keys of stores) keys.prime();
    },
  };
}
