import { errors as joseErrors, jwtVerify } from 'jose';
import { z } from 'zod';
import type { Principal } from '../../kernel/context.ts';
import { unauthenticated } from '../keys/index.ts';
import { ALGORITHM, AUDIENCE, emailSchema, LOCAL_ISSUER, slugSchema } from './local-token.ts';
import type { Sessions } from './sessions.ts';

/**
 * The identity provider of development and tests: verifies tokens signed with a secret of this installation. It stands behind
 * the same seam as any other provider and does not exist in production mode, nor beside a real one.
 */
export interface LocalIdentity {
  /** The person's principal. Throws AppError `unauthenticated`. */
  authenticate(token: string): Promise<Principal>;
}

const claimsSchema = z.object({
  sub: emailSchema,
  iat: z.number(),
  org: slugSchema.optional(),
  admin: z.boolean().optional(),
});

const SECOND_MS = 1_000;

/** Builds the provider around its signing secret (32 bytes). */
export function createLocalIdentity(parts: { secret: Uint8Array; sessions: Sessions }): LocalIdentity {
  async function verify(token: string): Promise<z.infer<typeof claimsSchema>> {
    try {
      const { payload } = await jwtVerify(token, parts.secret, {
        algorithms: [ALGORITHM],
        issuer: LOCAL_ISSUER,
        audience: AUDIENCE,
        requiredClaims: ['exp'],
      });
      return claimsSchema.parse(payload);
    } catch (error) {
      if (error instanceof joseErrors.JOSEError || error instanceof z.ZodError) throw unauthenticated();
      throw error;
    }
  }

  return {
    async authenticate(token) {
      const { sub, iat, org, admin } = await verify(token);
      const claims = {
        issuer: LOCAL_ISSUER,
        subject: sub,
        email: sub,
        organization: org === undefined ? null : { externalId: org, slug: org, name: org, role: null },
        sessionId: null,
        issuedAt: new Date(iat * SECOND_MS),
      };
      return parts.sessions.principalOf(claims, admin === true);
    },
  };
}
