import { errors as joseErrors, jwtVerify } from 'jose';
import { z } from 'zod';
import type { Principal } from '../../kernel/context.ts';
import { readBounded } from '../../lib/bounded-body.ts';
import { isSafeUrl } from '../../platform/config-values.ts';
import type { SigningKeys } from '../../platform/signing-keys.ts';
import { unauthenticated } from '../keys/index.ts';
import type { PersonClaims } from './people.ts';
import type { Sessions } from './sessions.ts';
import {
  CLOCK_SKEW_SECONDS,
  externalIdSchema,
  isAccessToken,
  isMadeFor,
  issuedAtSchema,
  limitedTo,
  permissionScopes,
  roleNamed,
  type UnverifiedToken,
  verifiedEmail,
} from './token-claims.ts';

/** Tokens of any OIDC issuer, verified without asking it. */
export interface OidcIdentity {
  readonly issuer: string;
  /** The person's principal. Throws AppError `unauthenticated`, or SigningKeysUnavailableError. */
  authenticate(token: UnverifiedToken): Promise<Principal>;
}

export interface OidcIdentityParts {
  readonly issuer: string;
  /** What tokens may be made for, beside the resource. */
  readonly audiences: readonly string[];
  /** What OAuth tokens are made for; such a token is limited to its scopes. */
  readonly resource: string;
  readonly organizationClaim: string;
  readonly roleClaim: string;
  readonly keys: SigningKeys;
  readonly sessions: Sessions;
}

/** Builds the provider. */
export function createOidcIdentity(parts: OidcIdentityParts): OidcIdentity {
  const audience = [...new Set([...parts.audiences, parts.resource])];

  async function verify(token: UnverifiedToken): Promise<PersonClaims> {
    if (!isOfSignIn(token)) throw unauthenticated();
    const found = await parts.keys.find(token.header.kid);
    if (found === null) throw unauthenticated();
    try {
      const { payload } = await jwtVerify(token.text, found.key, {
        algorithms: [...found.algorithms],
        issuer: parts.issuer,
        audience,
        clockTolerance: CLOCK_SKEW_SECONDS,
        requiredClaims: ['exp', 'iat', 'sub'],
      });
      return toClaims(parts, payload);
    } catch (error) {
      if (error instanceof joseErrors.JOSEError || error instanceof z.ZodError) throw unauthenticated();
      throw error;
    }
  }

  return {
    issuer: parts.issuer,
    async authenticate(token) {
      const principal = await parts.sessions.principalOf(await verify(token));
      const scopes = permissionScopes(token);
      const limited = isAccessToken(token) || isMadeFor(token, parts.resource) || scopes.size > 0;
      return limited ? limitedTo(scopes, principal) : principal;
    },
  };
}

/** Whether its `typ` is one of a person's token: issuers sign other things with the same keys (RFC 8725, section 3.11). */
function isOfSignIn(token: UnverifiedToken): boolean {
  const { typ } = token.header;
  return typ === undefined || typ === 'JWT' || isAccessToken(token);
}

const claimsSchema = z.looseObject({
  sub: externalIdSchema,
  // jose compares it with the clock only where an age is asked for.
  iat: z
    .number()
    .refine((iat) => iat <= Date.now() / 1_000 + CLOCK_SKEW_SECONDS)
    .pipe(issuedAtSchema),
  sid: externalIdSchema.optional(),
});

function toClaims(parts: OidcIdentityParts, payload: unknown): PersonClaims {
  const claims = claimsSchema.parse(payload);
  const organization = externalIdSchema.nullish().parse(claims[parts.organizationClaim]);
  const role = claims[parts.roleClaim];
  return {
    issuer: parts.issuer,
    subject: claims.sub,
    email: verifiedEmail(claims),
    organization:
      organization == null
        ? null
        : { externalId: organization, slug: null, name: null, role: role == null ? null : roleNamed(role) },
    sessionId: claims.sid ?? null,
    issuedAt: claims.iat,
  };
}

/** Discovery documents and key sets have below 20 kB. */
const ANSWER_BYTES_MAX = 262_144;

const discoverySchema = z.object({ issuer: z.string(), jwks_uri: z.string().refine(isSafeUrl) });

/**
 * Asks the issuer for its key set (OpenID Connect Discovery 1.0, section 4): where it is, once, and then only for the set
 * itself. Rejects where the document is not the issuer's own.
 */
export function createOidcKeyFetch(issuer: string): (signal: AbortSignal) => Promise<unknown> {
  let keySetUrl: string | undefined;

  async function discover(signal: AbortSignal): Promise<string> {
    // A slash at the end of the issuer does not stand twice (section 4.1).
    const answer = await getJson(`${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`, signal);
    const document = discoverySchema.parse(answer);
    if (document.issuer !== issuer) throw new Error('the discovery document is of another issuer than OIDC_ISSUER');
    return document.jwks_uri;
  }

  return async (signal) => {
    const url = keySetUrl ?? (await discover(signal));
    // Where the set is gone from there, the next attempt asks anew where it is.
    keySetUrl = undefined;
    const answer = await getJson(url, signal);
    keySetUrl = url;
    return answer;
  };
}

/** Redirects are refused: they would lead past the check of the address. */
async function getJson(url: string, signal: AbortSignal): Promise<unknown> {
  const response = await fetch(url, { headers: { accept: 'application/json' }, redirect: 'error', signal });
  if (!response.ok) {
    await response.body?.cancel();
    throw new Error(`the issuer answered with status ${response.status}`);
  }
  const text = await readBounded(response.body, ANSWER_BYTES_MAX);
  if (text === null) throw new Error(`the issuer answered more than ${ANSWER_BYTES_MAX} bytes`);
  return JSON.parse(text);
}
