import type { Principal } from '../../kernel/context.ts';
import { type Loaded, type PrincipalCache, type Tag, unauthenticated } from '../keys/index.ts';
import { type People, type PersonClaims, sessionPrincipal } from './people.ts';

/** From what a verified token says to the principal that calls: the same for every provider of identity. */
export interface Sessions {
  /**
   * The principal behind claims that have just been verified. Only who the person is here comes from memory, for a minute at
   * most. Throws AppError `unauthenticated` for whoever is suspended, banned or gone. `admin`: the provider vouches for a
   * platform administrator.
   */
  principalOf(claims: PersonClaims, admin?: boolean): Promise<Principal>;
}

/** Builds it around the people known here and a cache of its own. */
export function createSessions(parts: { readonly people: People; readonly cache: PrincipalCache }): Sessions {
  return {
    async principalOf(claims, admin = false) {
      const { issuer, subject, organization, sessionId } = claims;
      // Not by the token, which is new every minute where providers keep them short.
      const credential = JSON.stringify([issuer, subject, sessionId, organization, admin]);
      const known = parts.cache.get(credential);
      const principal =
        known === undefined ? await parts.cache.load(credential, () => load(parts.people, claims, admin)) : known;
      if (principal === null) throw unauthenticated();
      return principal;
    },
  };
}

async function load(people: People, claims: PersonClaims, admin: boolean): Promise<Loaded> {
  const person = await people.resolve(claims);
  const ofSession: Tag[] = claims.sessionId === null ? [] : [`session:${claims.sessionId}`];
  if (person === null) return { principal: null, tags: ofSession, expiresAtMs: null };
  return {
    principal: person.active ? sessionPrincipal(person, admin) : null,
    tags: [`owner:${person.ownerId}`, `user:${person.userId}`, ...ofSession],
    expiresAtMs: null,
    ownerEpoch: person.ownerEpoch,
  };
}
