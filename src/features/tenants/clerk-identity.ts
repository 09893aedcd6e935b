import { createPublicKey, hash, type KeyObject, verify } from 'node:crypto';
import type { ClerkClient } from '@clerk/backend';
import { z } from 'zod';
import type { Principal } from '../../kernel/context.ts';
import { AppError } from '../../kernel/errors.ts';
import { BoundedMap } from '../../lib/bounded-map.ts';
import type { SigningKey, SigningKeys } from '../../platform/signing-keys.ts';
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

/** Tokens remembered as judged: some hundred bytes each, and a token is good for a minute. */
const JUDGED_MAX = 10_000;

/** Builds the provider. */
export function createClerkIdentity(parts: ClerkIdentityParts): ClerkIdentity {
  // By a digest, so that no token lies in memory longer than its call.
  const judged = new BoundedMap<string, PersonClaims>(JUDGED_MAX);
  const { keys } = parts;
  // Read once: at every call it would cost as much as verifying.
  const find = typeof keys === 'string' ? fixedKey({ pem: keys, key: createPublicKey(keys) }) : keys.find;

  async function keyOf({ header }: UnverifiedToken): Promise<Pick<SigningKey, 'pem' | 'key'>> {
    const found = await find(header.kid);
    if (found === null) throw unauthenticated();
    return found;
  }

  /** A session, verified on every call. */
  async function sessionClaims(token: UnverifiedToken): Promise<PersonClaims> {
    if (!isOfSession(token)) throw unauthenticated();
    const { pem: jwtKey, key } = await keyOf(token);
    // What the library once found in order about this very text stays so until it expires; the signature is verified again, with
    // the key as it is now, at a sixth of the library's cost, which imports the key anew for every token.
    const digest = hash('sha256', token.text, 'base64');
    const before = judged.get(digest, Date.now());
    if (before !== undefined) {
      if (!signatureHolds(token, key)) throw unauthenticated();
      return before;
    }
    const { verifyToken } = await clerkLibrary();
    const payload: unknown = await verifyToken(token.text, {
      jwtKey,
      issuer: parts.issuer,
      audience: parts.audience,
      authorizedParties: [...parts.authorizedParties],
      clockSkewInMs: CLOCK_SKEW_SECONDS * 1_000,
    }).catch(refuse);
    const claims = toClaims(parts.issuer, payload);
    judged.set(digest, claims, (Number(token.payload.exp) + CLOCK_SKEW_SECONDS) * 1_000);
    return claims;
  }

  /** An OAuth access token, which `verifyToken` does not take. */
  async function accessTokenClaims(token: UnverifiedToken): Promise<PersonClaims> {
    const { client, resource } = parts;
    if (client === null) {
      throw new AppError('unauthenticated', 'OAuth access tokens are not accepted here: CLERK_SECRET_KEY is not set.');
    }
    const { pem: jwtKey } = await keyOf(token);
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

/** Hashes of the algorithms that Clerk's library takes, as Node names them. */
const HASHES: Readonly<Record<string, string>> = { RS256: 'sha256', RS384: 'sha384', RS512: 'sha512' };

/** The one key of an instance, whatever name tokens give it: the operator has brought it in. */
function fixedKey(key: Pick<SigningKey, 'pem' | 'key'>) {
  return () => Promise.resolve(key);
}

/** Whether the token was signed with that RSA key (RFC 7515, section 5.2; RFC 7518, section 3.3). */
function signatureHolds({ text, header }: UnverifiedToken, key: KeyObject): boolean {
  const algorithm = HASHES[String(header['alg'])];
  if (algorithm === undefined) return false;
  const end = text.lastIndexOf('.');
  return verify(algorithm, Buffer.from(text.slice(0, end)), key, Buffer.from(text.slice(end + 1), 'base64url'));
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
  if (!SESSION_CATEGORIES.includes(header['cat']) || String(payload.sub).startsWith('mch_')) return false;
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
