import { sql } from 'kysely';
import { z } from 'zod';
import { adminPermissions, type Context, type Permission, writing } from '../../kernel/context.ts';
import { AppError } from '../../kernel/errors.ts';
import { effectFields, withEffect } from '../keys/index.ts';
import { findPerson } from './find-person.ts';
import type { OperatorParts } from './operator.ts';

/** Giving platform permissions and taking them away, which differ in one word. */

const permissionsSchema = z
  .array(z.enum(adminPermissions))
  .min(1)
  .max(adminPermissions.length)
  .default([...adminPermissions]);

export const changeInput = z.strictObject({
  person: z.string().min(1).max(254).describe('Email or id of a person who has signed in'),
  permissions: permissionsSchema.describe('What the person may do on the platform'),
});

export const changeOutput = z.object({
  userId: z.string(),
  permissions: z.array(z.enum(adminPermissions)).describe('What the person may do now'),
  ...effectFields,
});

/** Changes what a person may do on the platform. A person who is suspended or gone is given nothing. */
export async function changePermissions(
  { invalidations, dataKeys }: OperatorParts,
  context: Context,
  { person: named, permissions }: z.infer<typeof changeInput>,
  granted: boolean,
) {
  const tx = writing(context);
  const person = await findPerson(tx, dataKeys, { person: named });
  const { userId } = person;
  if (granted && !person.active) throw new AppError('not_found', `${userId} is suspended or closed.`);
  const actorId = context.principal.userId ?? context.principal.ownerId;
  const { rows } = await sql<{ platform_permissions: Permission[]; owner_ids: string[] }>`
    select * from set_platform_permissions(${userId}, ${permissions}, ${granted}, ${actorId}, ${context.requestId})`.execute(
    tx,
  );
  const [row] = rows;
  if (row === undefined) throw new AppError('not_found', `Nobody here is ${userId}.`);
  const now = adminPermissions.filter((permission) => row.platform_permissions.includes(permission));
  context.audit.resourceId = userId;
  context.audit.changes = { permissions, now };
  const change = { ownerIds: row.owner_ids, tags: [`user:${userId}`] } as const;
  return withEffect(invalidations, context, change, { userId, permissions: now });
}
