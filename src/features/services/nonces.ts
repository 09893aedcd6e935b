import { unavailable } from '../../kernel/errors.ts';
import type { Database } from '../../platform/postgres.ts';
import type { Redis } from '../../platform/redis.ts';

/** The nonces that services have used, shared by all instances: one that is used a second time belongs to a replay. */
export interface Nonces {
  /**
   * Takes the nonce for good until that moment (Unix milliseconds). False when somebody has it already; of many at once
   * exactly one gets it. Rejects when that cannot be known.
   */
  claim(keyId: string, nonce: string, expiresAtMs: number): Promise<boolean>;
}

/** Nonces in PostgreSQL. A row is durable before the call it belongs to goes on, so no crash lets a replay pass. */
export function createPostgresNonces(database: Pick<Database, 'call'>): Nonces {
  return {
    claim: (keyId, nonce, expiresAtMs) =>
      database.call(async (tx) => {
        const { numInsertedOrUpdatedRows } = await tx
          .insertInto('service_nonces')
          .values({ key_id: keyId, nonce, expires_at: new Date(expiresAtMs) })
          .onConflict((conflict) => conflict.doNothing())
          .executeTakeFirstOrThrow();
        return numInsertedOrUpdatedRows === 1n;
      }),
  };
}

/**
 * Nonces in Redis, which forgets them by itself. With Redis away no signed call is accepted:
 * nonces kept somewhere else meanwhile would not stop a replay of what Redis has seen.
 */
export function createRedisNonces(redis: Pick<Redis, 'setOnce'>): Nonces {
  return {
    async claim(keyId, nonce, expiresAtMs) {
      try {
        return await redis.setOnce(`nonce:${keyId}:${nonce}`, expiresAtMs);
      } catch (error) {
        throw unavailable('Redis cannot say whether the nonce of a signed call is new.', error);
      }
    },
  };
}
