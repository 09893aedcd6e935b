import type { Context } from '../../kernel/context.ts';
import type { Transaction } from '../../platform/postgres.ts';
import { unauthenticated } from './authenticate-key.ts';

/**
 * Refuses a key that was ended while its call was under way, or whose secret was, or that was found in public: what it makes or
 * changes now would outlive that. To be asked in the transaction of the write, once its locks are held. Throws
 * `unauthenticated`.
 */
export async function assertCallerLives(
  tx: Transaction,
  { principal: { key, ownerId } }: Context,
  now: Date,
): Promise<void> {
  if (key === null) return;
  const found = await tx
    .selectFrom('api_keys as secret')
    .innerJoin('api_key_families as family', 'family.id', 'secret.family_id')
    .where('secret.owner_id', '=', ownerId)
    .where('secret.id', '=', key.secretId)
    .where('secret.is_active', '=', true)
    .where('secret.revoked_at', 'is', null)
    .where('secret.leaked_at', 'is', null)
    .where('family.owner_id', '=', ownerId)
    .where('family.revoked_at', 'is', null)
    .where((is) => is.or([is('secret.expires_at', 'is', null), is('secret.expires_at', '>', now)]))
    .where((is) => is.or([is('family.expires_at', 'is', null), is('family.expires_at', '>', now)]))
    .select('secret.id')
    .executeTakeFirst();
  if (found === undefined) throw unauthenticated();
}
