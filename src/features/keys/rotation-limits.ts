import { AppError } from '../../kernel/errors.ts';
import type { Transaction } from '../../platform/postgres.ts';
import { earliest } from './secret-record.ts';

/**
 * Secrets of a key that work at the same time: the newest, the one it replaces, and one more for a rotation that has to be
 * repeated before the first is through. Each further one is another copy that may be lost.
 */
const SECRETS_AT_ONCE_MAX = 3;
/**
 * Secrets kept of a key, those that ended in the last 90 days included: a rotation every two hours all that time. Whoever
 * shows, revokes or clears a key may have to go through all of them.
 */
const SECRETS_KEPT_MAX = 1_000;

/** Refuses a rotation of a key of which as many secrets are kept as may be. */
export async function assertRoomForSecret(
  tx: Transaction,
  { ownerId, id }: { ownerId: string; id: string },
): Promise<void> {
  const last = await tx
    .selectFrom('api_keys')
    .where('owner_id', '=', ownerId)
    .where('family_id', '=', id)
    .select('id')
    .offset(SECRETS_KEPT_MAX - 1)
    .limit(1)
    .executeTakeFirst();
  if (last === undefined) return;
  throw new AppError(
    'key_limit_reached',
    `This key has had ${SECRETS_KEPT_MAX} secrets, and those that ended are kept for 90 days: make a new key.`,
    { details: { limit: SECRETS_KEPT_MAX } },
  );
}

/** Refuses a rotation after which more secrets would work than may. `ends` are those that keep an overlap. */
export function assertFewAtOnce(ends: readonly Date[]): void {
  if (ends.length < SECRETS_AT_ONCE_MAX) return;
  const retryAt = earliest(ends)?.toISOString();
  throw new AppError(
    'rotation_in_progress',
    `${SECRETS_AT_ONCE_MAX} secrets of this key work already. Wait until ${retryAt}, when the next overlap ends, or rotate with overlapSeconds 0, which ends all older ones at once.`,
    { details: { limit: SECRETS_AT_ONCE_MAX, retryAt } },
  );
}
