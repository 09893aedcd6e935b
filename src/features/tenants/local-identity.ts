import { randomBytes } from 'node:crypto';
import { errors as joseErrors, jwtVerify, SignJWT } from 'jose';
import { z } from 'zod';
import type { Principal } from '../../kernel/context.ts';
import { type Loaded, type PrincipalCache, unauthenticated } from '../keys/index.ts';
import { type People, type PersonClaims, sessionPrincipal } from './people.ts';

/**
 * The identity provider of development and tests: signs and verifies tokens with a secret of this installation. It
 * stands behind the same seam as any other provider and does not exist in production mode.
 */
export interface LocalIdentity {
  /** The person's principal. Throws AppError `unauthenticated`. */
  authenticate(token: string): Principal | Promise<Principal>;
}

export const LOCAL_ISSUER = 'iora:local';
const AUDIENCE = 'iora';
const TOKEN_LIFETIME = '12h';
const ALGORITHM = 'HS256';

export const emailSchema = z.email().max(254);
export const slugSchema = z
  .string()
  .max(63)
  .regex(/^[a-z0-9](?:[a-z0-9-]*[a-z0-9])?$/, 'must be lower-case letters, digits and inner hyphens');

const claimsSchema = z.object({ sub: emailSchema, org: slugSchema.optional(), admin: z.boolean().optional() });

export interface LocalIdentityParts {
  readonly secret: Uint8Array;
  readonly people: People;
  readonly cache: PrincipalCache;
}

/** Builds the provider around its signing secret (32 bytes). */
export function createLocalIdentity(parts: LocalIdentityParts): LocalIdentity {
  async function verify(token: string): Promise<PersonClaims> {
    try {
      const { payload } = await jwtVerify(token, parts.secret, {
        algorithms: [ALGORITHM],
        issuer: LOCAL_ISSUER,
        audience: AUDIENCE,
      });
      const claims = claimsSchema.parse(payload);
      return {
        issuer: LOCAL_ISSUER,
        subject: claims.sub,
        email: claims.sub,
        orgSlug: claims.org ?? null,
        admin: claims.admin === true,
      };
    } catch (error) {
      if (error instanceof joseErrors.JOSEError || error instanceof z.ZodError) throw unauthenticated();
      throw error;
    }
  }

  return {
    async authenticate(token) {
      // The signature is verified on every call; only who the person is here comes from memory.
      const claims = await verify(token);
      const credential = JSON.stringify([claims.issuer, claims.subject, claims.orgSlug, claims.admin]);
      const principal =
        parts.cache.get(credential) ?? (await parts.cache.load(credential, () => load(parts.people, claims)));
      if (principal === null) throw unauthenticated();
      return principal;
    },
  };
}

/**
 * A signed token for that person, valid for TOKEN_LIFETIME; the person is made known at its first use. Throws ZodError
 * for an email or slug that is none.
 */
export function signLocalToken(
  secret: Uint8Array,
  { email, org, admin }: { email: string; org?: string | undefined; admin?: boolean | undefined },
): Promise<string> {
  const claims = { ...(org === undefined ? {} : { org: slugSchema.parse(org) }), ...(admin === true ? { admin } : {}) };
  return new SignJWT(claims)
    .setProtectedHeader({ alg: ALGORITHM })
    .setIssuer(LOCAL_ISSUER)
    .setAudience(AUDIENCE)
    .setSubject(emailSchema.parse(email.toLowerCase()))
    .setJti(randomBytes(12).toString('base64url'))
    .setIssuedAt()
    .setExpirationTime(TOKEN_LIFETIME)
    .sign(secret);
}

async function load(people: People, claims: PersonClaims): Promise<Loaded> {
  const person = await people.resolve(claims);
  return {
    principal: person.active ? sessionPrincipal(person, claims.admin) : null,
    tags: [`owner:${person.ownerId}`, `user:${person.userId}`],
    expiresAtMs: null,
  };
}
