import { z } from 'zod';
import { type Principal, writing } from '../../kernel/context.ts';
import { AppError } from '../../kernel/errors.ts';
import { defineOperation } from '../../kernel/operation.ts';
import type { Transaction } from '../../platform/postgres.ts';
import { lockKeysOf } from './create-key.ts';
import { effectFields, effectVolatile, withEffect } from './effect.ts';
import type { KeysParts } from './index.ts';
import { revokeSecrets } from './lock-secrets.ts';
import type { Tag } from './principal-cache.ts';

/** Ids that the audit row names: as many as the largest tier has keys. */
const IDS_NAMED_MAX = 500;

/** Revokes all keys of the owner at once, or those that one person created: a leaver's. The calling key is no exception. */
export const revokeAllKeys = (parts: KeysParts) =>
  defineOperation({
    name: 'keys.revoke_all',
    route: { method: 'POST', path: '/user/api-keys/revoke-all' },
    summary: 'Revoke all API keys, or all that one person created',
    permission: 'keys:write',
    audience: 'tenant',
    transports: ['http', 'cli'],
    cost: 0,
    input: z.strictObject({
      createdBy: z
        .string()
        .regex(/^user_[0-9A-Za-z]{1,95}$/, 'must be the id of a person, as createdBy of a key')
        .optional()
        .describe('Only keys that this person created; a plain member revokes its own in any case'),
    }),
    output: z.object({
      revoked: z.int().describe('Keys that were live and are revoked now'),
      revokedAt: z.iso.datetime(),
      ...effectFields,
    }),
    answer: 'json',
    volatile: ['revoked', 'revokedAt', ...effectVolatile],
    idempotent: true,
    readOnly: false,
    audit: { action: 'api_keys_revoked', resourceType: 'api_key' },
    example: { createdBy: 'user_0f3b6c1d9e2a4f58b7c6d5e4f3a2b1c0' },
    async run(context, request) {
      const tx = writing(context);
      const { ownerId } = context.principal;
      const createdBy = creatorMeant(context.principal, request.createdBy);
      const revokedAt = new Date(parts.wallClockMs());
      await lockKeysOf(tx, ownerId);
      const revokedBy = context.principal.userId ?? 'operator';
      const ids = await revokeFamilies(tx, { ownerId, createdBy, revokedAt, revokedBy });
      if (ids.length > 0) await revokeSecrets(tx, { ownerId, familyIds: ids, revokedAt });
      context.audit.resourceId = createdBy ?? ownerId;
      context.audit.changes = { createdBy, revoked: ids.length, keyIds: ids.slice(0, IDS_NAMED_MAX) };
      const tag: Tag = createdBy === null ? `owner:${ownerId}` : `user:${createdBy}`;
      const answer = { revoked: ids.length, revokedAt: revokedAt.toISOString() };
      return withEffect(parts.invalidations, context, { ownerIds: [ownerId], tags: [tag] }, answer);
    },
  });

/** Whose keys are meant; null for everybody's. Throws `forbidden` for a plain member that means another's. */
function creatorMeant({ role, userId }: Principal, asked: string | undefined): string | null {
  if (role !== 'member') return asked ?? null;
  if (asked !== undefined && asked !== userId) {
    throw new AppError('forbidden', "A member revokes its own keys only; an owner or admin revokes other people's.");
  }
  return userId;
}

interface Wanted {
  readonly ownerId: string;
  readonly createdBy: string | null;
  readonly revokedAt: Date;
  readonly revokedBy: string;
}

async function revokeFamilies(tx: Transaction, { ownerId, createdBy, revokedAt, revokedBy }: Wanted) {
  const live = tx
    .updateTable('api_key_families')
    .set({ revoked_at: revokedAt, revoked_by: revokedBy })
    .where('owner_id', '=', ownerId)
    .where('revoked_at', 'is', null)
    .where((builder) => builder.or([builder('expires_at', 'is', null), builder('expires_at', '>', revokedAt)]));
  const meant = createdBy === null ? live : live.where('user_id', '=', createdBy);
  return (await meant.returning('id').execute()).map(({ id }) => id);
}
