import { z } from 'zod';
import { writing } from '../../kernel/context.ts';
import { defineOperation } from '../../kernel/operation.ts';
import { effectFields, effectVolatile, withEffect } from './effect.ts';
import { familyOrNotFound } from './get-key.ts';
import type { KeysParts } from './index.ts';
import { keyIdSchema } from './key-record.ts';
import { revokeSecrets } from './lock-secrets.ts';

/** Revokes a key for good. The answer says on how many of the live instances that holds already. */
export const revokeKey = (parts: KeysParts) =>
  defineOperation({
    name: 'keys.revoke',
    route: { method: 'DELETE', path: '/user/api-keys/{id}' },
    summary: 'Revoke an API key',
    permission: 'keys:write',
    audience: 'tenant',
    transports: ['http', 'cli'],
    cost: 0,
    input: z.strictObject({ id: keyIdSchema }),
    output: z.object({
      id: z.uuid(),
      revokedAt: z.iso.datetime(),
      ...effectFields,
    }),
    answer: 'json',
    volatile: [...effectVolatile, 'revokedAt'],
    idempotent: true,
    readOnly: false,
    audit: { action: 'api_key_revoked', resourceType: 'api_key' },
    example: { id: '0198f2a0-7c11-7b3a-9d4e-2f6a1c0b5e77' },
    async run(context, request) {
      const tx = writing(context);
      const family = await familyOrNotFound(tx, context, request.id, 'lock');
      // As kept, not as asked for: a UUID may also be written in capitals, and what is remembered goes by this one.
      const { id } = family;
      // Revoking twice is no fault: the first moment stands, and the news is sent again.
      const revokedAt = family.revoked_at ?? new Date(parts.wallClockMs());
      context.audit.resourceId = id;
      context.audit.changes = { name: family.name, again: family.revoked_at !== null };
      if (family.revoked_at === null) {
        const { ownerId, userId } = context.principal;
        await tx
          .updateTable('api_key_families')
          .set({ revoked_at: revokedAt, revoked_by: userId ?? 'operator' })
          .where('id', '=', id)
          .where('owner_id', '=', ownerId)
          .execute();
        await revokeSecrets(tx, { ownerId, familyIds: [id], revokedAt });
      }
      const change = { ownerIds: [context.principal.ownerId], tags: [`family:${id}` as const] };
      return withEffect(parts.invalidations, context, change, { id, revokedAt: revokedAt.toISOString() });
    },
  });
