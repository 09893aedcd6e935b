import { sql } from 'kysely';
import { z } from 'zod';
import { type Context, writing } from '../../kernel/context.ts';
import { AppError } from '../../kernel/errors.ts';
import { effectFields, tagsOf, withEffect } from '../keys/index.ts';
import type { OperatorParts } from './operator.ts';
import { findTenant, tenantInput } from './tenant-record.ts';

/** Suspending a tenant and lifting that, which differ in one word. Both travel like the revocation of a key. */

const REASON_LENGTH_MAX = 200;

export const suspensionInput = z.strictObject({
  ...tenantInput,
  reason: z
    .string()
    .min(1)
    .max(REASON_LENGTH_MAX)
    .regex(/^[^\p{Cc}]+$/u, 'must hold no control characters')
    .refine((reason) => reason.isWellFormed(), 'must be well-formed Unicode')
    .optional()
    .describe('For the audit trail, which the tenant can read'),
});

export const suspensionOutput = z.object({
  id: z.string(),
  suspendedAt: z.iso.datetime().nullable(),
  ...effectFields,
});

/** Suspends the tenant, or lets it go on. */
export async function changeSuspension(
  { invalidations, dataKeys }: OperatorParts,
  context: Context,
  { tenant, reason }: z.infer<typeof suspensionInput>,
  suspended: boolean,
) {
  const tx = writing(context);
  const { id } = await findTenant(tx, dataKeys, tenant);
  const actorId = context.principal.userId ?? context.principal.ownerId;
  const { rows } = await sql<{ suspended_at: Date | null; owner_ids: string[] }>`
    select * from set_owner_suspended(${id}, ${suspended}, ${reason ?? null}, ${actorId}, ${context.requestId})`.execute(
    tx,
  );
  const [row] = rows;
  if (row === undefined) throw new AppError('not_found', `There is no tenant ${id}.`);
  context.audit.resourceId = id;
  context.audit.changes = reason === undefined ? {} : { reason };
  const change = { ownerIds: row.owner_ids, tags: tagsOf(id) };
  return withEffect(invalidations, context, change, { id, suspendedAt: row.suspended_at?.toISOString() ?? null });
}
