import { sql } from 'kysely';
import type { Transaction } from '../../platform/postgres.ts';

/**
 * Locks the secrets of those keys that were not ended, until the transaction ends; answers their ids. In the order of their
 * ids, like whoever counts their uses, so that the two never wait for each other in a circle.
 */
export async function lockSecrets(
  tx: Transaction,
  { ownerId, familyIds }: { ownerId: string; familyIds: readonly string[] },
): Promise<readonly string[]> {
  const rows = await tx
    .selectFrom('api_keys')
    .where('owner_id', '=', ownerId)
    .where(sql<boolean>`family_id = any(${familyIds}::uuid[])`)
    .where('is_active', '=', true)
    .select('id')
    .orderBy('id')
    .forUpdate()
    .execute();
  return rows.map(({ id }) => id);
}

/** Ends the secrets of those keys that work or may. One that was ended before keeps its first moment. */
export async function revokeSecrets(
  tx: Transaction,
  revoked: { ownerId: string; familyIds: readonly string[]; revokedAt: Date },
): Promise<void> {
  const secretIds = await lockSecrets(tx, revoked);
  await tx
    .updateTable('api_keys')
    .set({ is_active: false, revoked_at: revoked.revokedAt })
    .where('owner_id', '=', revoked.ownerId)
    .where(sql<boolean>`id = any(${secretIds}::uuid[])`)
    .execute();
}
