import { z } from 'zod';
import { writing } from '../../kernel/context.ts';
import { AppError } from '../../kernel/errors.ts';
import { defineOperation } from '../../kernel/operation.ts';
import { assertCallerLives } from './caller-lives.ts';
import { futureMoment } from './create-key.ts';
import { familyOrNotFound } from './get-key.ts';
import type { KeysParts } from './index.ts';
import {
  allowedCidrsSchema,
  assertNotStronger,
  keyIdSchema,
  keySchema,
  nameSchema,
  ownLimitSchema,
  permissionsSchema,
  toKeyRecord,
} from './key-record.ts';

const input = z
  .strictObject({
    id: keyIdSchema,
    name: nameSchema.optional().describe('What the key is for'),
    permissions: permissionsSchema.optional().describe('What the key may do; replaces what it could'),
    expiresAt: z.iso
      .datetime({ offset: true })
      .nullable()
      .optional()
      .describe('From then on the key is refused; null: never'),
    requestsPerMinute: ownLimitSchema.optional().describe("A limit of the key's own, below the owner's; null: none"),
    requestsPerMonth: ownLimitSchema.optional().describe("A quota of the key's own, below the owner's; null: none"),
    allowedCidrs: allowedCidrsSchema
      .optional()
      .describe('Networks or addresses the key may be used from; replaces those before, none named means any'),
  })
  .refine(({ id, ...change }) => Object.values(change).some((value) => value !== undefined), 'names nothing to change');

/** Changes name, permissions, expiry, limits or networks of a live key; takes effect at once. */
export const updateKey = (parts: KeysParts) =>
  defineOperation({
    name: 'keys.update',
    route: { method: 'PATCH', path: '/user/api-keys/{id}' },
    summary: 'Change name, permissions, expiry, limits or networks of an API key',
    permission: 'keys:write',
    audience: 'tenant',
    transports: ['http', 'cli'],
    cost: 0,
    input,
    output: keySchema,
    answer: 'json',
    volatile: ['updatedAt', 'lastUsedAt', 'usesSinceRotation'],
    idempotent: true,
    readOnly: false,
    audit: { action: 'api_key_updated', resourceType: 'api_key' },
    example: { id: '0198f2a0-7c11-7b3a-9d4e-2f6a1c0b5e77', name: 'backend, blue' },
    async run(context, { id: asked, ...change }) {
      const tx = writing(context);
      const family = await familyOrNotFound(tx, context, asked, 'lock');
      const nowMs = parts.wallClockMs();
      await assertCallerLives(tx, context, new Date(nowMs));
      const before = toKeyRecord(family, nowMs);
      // As kept, not as asked for: a UUID may also be written in capitals, and what is remembered goes by this one.
      const { id } = before;
      context.audit.resourceId = id;
      if (before.status !== 'active')
        throw new AppError('not_found', `The API key is ${before.status}; make a new one.`);
      const expiresAt = futureMoment(change.expiresAt, nowMs);
      assertNotStronger(context, { ...change, expiresAt: change.expiresAt === undefined ? undefined : expiresAt });
      await tx
        .updateTable('api_key_families')
        .set({
          ...(change.name === undefined ? {} : { name: change.name }),
          ...(change.permissions === undefined ? {} : { permissions: change.permissions }),
          ...(change.expiresAt === undefined ? {} : { expires_at: expiresAt }),
          ...(change.requestsPerMinute === undefined ? {} : { requests_per_minute: change.requestsPerMinute }),
          ...(change.requestsPerMonth === undefined ? {} : { requests_per_month: change.requestsPerMonth }),
          ...(change.allowedCidrs === undefined ? {} : { allowed_cidrs: change.allowedCidrs }),
        })
        .where('id', '=', id)
        .where('owner_id', '=', context.principal.ownerId)
        .execute();
      const announcement = await parts.invalidations.announce(tx, {
        ownerIds: [context.principal.ownerId],
        tags: [`family:${id}`],
      });
      context.afterCommit(() => void announcement.apply());
      const after = toKeyRecord(await familyOrNotFound(tx, context, id), nowMs);
      context.audit.changes = { before: changed(before, change), after: changed(after, change) };
      return after;
    },
  });

/** Of a record, the fields that the change names. */
function changed(record: Record<string, unknown>, change: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.keys(change).map((name) => [name, record[name]]));
}
