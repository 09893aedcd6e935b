import { errors as joseErrors, jwtVerify } from 'jose';
import { z } from 'zod';
import type { Principal } from '../../kernel/context.ts';
import { type Loaded, type PrincipalCache, unauthenticated } from '../keys/index.ts';
import { ALGORITHM, AUDIENCE, emailSchema, LOCAL_ISSUER, slugSchema } from './local-token.ts';
import { type People, type PersonClaims, sessionPrincipal } from './people.ts';

/**
 * The identity provider of development and tests: signs and verifies tokens with a secret of this installation. It
 * stands behind the same seam as any other provider and does not exist in production mode.
 */
export interface LocalIdentity {
  /** The person's principal. Throws AppError `unauthenticated`. */
  authenticate(token: string): Principal | Promise<Principal>;
}

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
        requiredClaims: ['exp'],
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
      const known = parts.cache.get(credential);
      const principal =
        known === undefined ? await parts.cache.load(credential, () => load(parts.people, claims)) : known;
      if (principal === null) throw unauthenticated();
      return principal;
    },
  };
}

async function load(people: People, claims: PersonClaims): Promise<Loaded> {
  const person = await people.resolve(claims);
  return {
    principal: person.active ? sessionPrincipal(person, claims.admin) : null,
    tags: [`owner:${person.ownerId}`, `user:${person.userId}`],
    expiresAtMs: null,
  };
}
