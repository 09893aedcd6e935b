import { randomBytes } from 'node:crypto';
import { SignJWT } from 'jose';
import { z } from 'zod';

/** Tokens of the local identity provider: what they hold, and signing one, which needs nothing but the secret. */

export const LOCAL_ISSUER = 'iora:local';
export const AUDIENCE = 'iora';
export const ALGORITHM = 'HS256';
const TOKEN_LIFETIME = '12h';

/** As browsers judge it, so that root@localhost is one too. */
export const emailSchema = z.email({ pattern: z.regexes.html5Email }).max(254);
export const slugSchema = z
  .string()
  .max(63)
  .regex(/^[a-z0-9](?:[a-z0-9-]*[a-z0-9])?$/, 'must be lower-case letters, digits and inner hyphens');

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
