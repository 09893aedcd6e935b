import type { ClerkClient } from '@clerk/backend';
import { z } from 'zod';
import type { Principal } from '../../kernel/context.ts';
import { AppError } from '../../kernel/errors.ts';
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
  slugOf,
  type UnverifiedToken,
  verifiedEmail,
} from './token-claims.ts';

/** Tokens of a Clerk instance, verified by Clerk's own library and without asking Clerk. */
export interface ClerkIdentity {
  readonly issuer: string;
  /** The person's principal. Throws AppError `unauthenticated`, or SigningKeysUnavailableError. */
  authenticate(token: UnverifiedToken): Promise<Principal>;
}

export interface ClerkIdentityParts {
  readonly issuer: string;
  /** Null without a secret key: then OAuth tokens are refused, for the library takes them only beside one. */
  readonly client: ClerkClientSource | null;
  /** The key of the instance in PEM, or where its keys are kept. */
  readonly keys: string | SigningKeys;
  /** Origins for which sessions may have been made. */
  readonly authorizedParties: readonly string[];
  /** What a token that names an audience must be made for. */
  readonly audience: string;
  /** What OAuth tokens must be made for. */
  readonly resource: string;
  readonly sessions: Sessions;
}

/** Builds the provider. */
export function createClerkIdentity(parts: ClerkIdentityParts): ClerkIdentity {
  async function pemOf({ header }: UnverifiedToken): Promise<string> {
    if (typeof parts.keys === 'string') return parts.keys;
    const found = await parts.keys.find(header.kid);
    if (found === null) throw unauthenticated();
    return found.pem;
  }

  /** A session, verified on every call. */
  async function sessionClaims(token: UnverifiedToken): Promise<PersonClaims> {
    if (!isOfSession(token)) throw unauthenticated();
    const jwtKey = await pemOf(token);
    const { verifyToken } = await clerkLibrary();
    const payload: unknown = await verifyToken(token.text, {
      jwtKey,
      issuer: parts.issuer,
      audience: parts.audience,
      authorizedParties: [...parts.authorizedParties],
      clockSkewInMs: CLOCK_SKEW_SECONDS * 1_000,
    }).catch(refuse);
    return toClaims(parts.issuer, payload);
  }

  /** An OAuth access token, which `verifyToken` does not take. */
  async function accessTokenClaims(token: UnverifiedToken): Promise<PersonClaims> {
    const { client, resource } = parts;
    if (client === null) {
      throw new AppError('unauthenticated', 'OAuth access tokens are not accepted here: CLERK_SECRET_KEY is not set.');
    }
    const jwtKey = await pemOf(token);
    const request = new Request(resource, { headers: { authorization: `Bearer ${token.text}` } });
    const { authenticateRequest } = await client();
    const state = await authenticateRequest(request, {
      acceptsToken: 'oauth_token',
      jwtKey,
      clockSkewInMs: CLOCK_SKEW_SECONDS * 1_000,
    }).catch(refuse);
    // Ours to judge: the library checks no issuer here, and releases differ in whether a missing audience passes.
    const verified = state.isAuthenticated && token.payload.iss === parts.issuer && isMadeFor(token, resource);
    if (!verified) throw unauthenticated();
    return toClaims(parts.issuer, token.payload);
  }

  return {
    issuer: parts.issuer,
    async authenticate(token) {
      if (!isAccessToken(token)) return parts.sessions.principalOf(await sessionClaims(token));
      const claims = await accessTokenClaims(token);
      return limitedTo(permissionScopes(token), await parts.sessions.principalOf(claims));
    },
  };
}

/** An opaque token of a Clerk instance, refused with the way to one that can be verified here. Null for all others. */
export function opaqueTokenRefusal(token: string): AppError | null {
  if (!token.startsWith('oat_')) return null;
  return new AppError(
    'unauthenticated',
    'Opaque OAuth tokens are not accepted: in the dashboard of Clerk, under OAuth applications, Settings, turn on "Generate access tokens as JWTs".',
  );
}

/** Opens the client of the Backend API at first use. */
export type ClerkClientSource = () => Promise<ClerkClient>;

/** A client that tells Clerk nothing about its use. */
export function createClerkClientSource(options: {
  readonly publishableKey: string;
  readonly secretKey: string;
  readonly apiUrl: string;
}): ClerkClientSource {
  let client: Promise<ClerkClient> | undefined;
  return () => {
    client ??= clerkLibrary().then(({ createClerkClient }) =>
      createClerkClient({ ...options, telemetry: { disabled: true } }),
    );
    return client;
  };
}

/** Asks the Backend API for the keys of the instance. */
export function createClerkKeyFetch(client: ClerkClientSource): () => Promise<unknown> {
  return async () => {
    const { jwks } = await client();
    return jwks.getJwks().catch((error: unknown) => {
      // The client's own error has no message.
      const status = error instanceof Error && 'status' in error ? error.status : undefined;
      throw new Error(status === undefined ? 'Clerk did not answer' : `Clerk answered with status ${String(status)}`);
    });
  };
}

let library: Promise<typeof import('@clerk/backend')> | undefined;

/** Loaded when it is needed: it takes a tenth of a second, which commands would wait for. */
function clerkLibrary(): Promise<typeof import('@clerk/backend')> {
  library ??= import('@clerk/backend');
  return library;
}

/** Whatever the library finds wrong; with the key at hand it asks nobody, so nothing else can fail. */
function refuse(): never {
  throw unauthenticated();
}

/** Header `cat` of what Clerk issues besides sessions; these two are sessions (@clerk/backend, tokens/jwtCategories). */
const SESSION_CATEGORIES: readonly unknown[] = [undefined, 'cl_B7d4PD111AAA', 'cl_I7d4PD111III'];

/** Whether it is the token of a session that is complete: not a machine's, and no task of signing in left to do. */
function isOfSession({ header, payload }: UnverifiedToken): boolean {
  if (!SESSION_CATEGORIES.includes(header['cat']) || payload.sub?.startsWith('mch_') === true) return false;
  return payload['sts'] === undefined || payload['sts'] === 'active';
}

const claimsSchema = z.object({
  sub: externalIdSchema,
  iat: issuedAtSchema,
  sid: externalIdSchema.optional(),
  // Version 1 of session tokens.
  org_id: externalIdSchema.nullish(),
  org_slug: z.unknown().optional(),
  org_role: z.unknown().optional(),
  // Version 2.
  o: z.object({ id: externalIdSchema, slg: z.unknown().optional(), rol: z.unknown().optional() }).nullish(),
  email: z.unknown().optional(),
  email_verified: z.unknown().optional(),
});

function toClaims(issuer: string, payload: unknown): PersonClaims {
  const { data } = claimsSchema.safeParse(payload);
  if (data === undefined) throw unauthenticated();
  const { id, slug, role } =
    data.o == null
      ? { id: data.org_id, slug: data.org_slug, role: data.org_role }
      : { id: data.o.id, slug: data.o.slg, role: data.o.rol };
  return {
    issuer,
    subject: data.sub,
    email: verifiedEmail(data),
    organization: id == null ? null : { externalId: id, slug: slugOf(slug), name: null, role: roleNamed(role) },
    sessionId: data.sid ?? null,
    issuedAt: data.iat,
  };
}
