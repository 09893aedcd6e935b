import { sql } from 'kysely';
import { z } from 'zod';
import { type Principal, writing } from '../../kernel/context.ts';
import { AppError } from '../../kernel/errors.ts';
import { defineOperation } from '../../kernel/operation.ts';
import { effectFields, effectVolatile, tagsOf, withEffect } from '../keys/index.ts';
import type { OperatorParts } from './operator.ts';
import { ORG_ID, USER_ID } from './tenant-ids.ts';

const input = z.strictObject({
  tier: z.string().min(1).max(50).describe('Name of the tier: free, pro or enterprise, unless others were added'),
  userId: z.string().regex(USER_ID, 'must be user_...').optional().describe('The person it is for'),
  orgId: z.string().regex(ORG_ID, 'must be org_...').optional().describe('The organization it is for'),
});

/**
 * Puts an organization or a person into a tier, from the next call on. Limits of its own are kept. Whoever acts for nobody, the
 * operator of the installation, has to name one; others mean their own when they name none.
 */
export const setTier = ({ invalidations, clerk }: OperatorParts) =>
  defineOperation({
    name: 'tenants.set_tier',
    route: { method: 'POST', path: '/user/tier' },
    summary: 'Put an organization or a person into a tier',
    permission: 'admin:write',
    callers: ['session', 'operator'],
    audience: 'operator',
    transports: ['http', 'cli'],
    cost: 0,
    input,
    output: z.object({ ownerId: z.string(), tier: z.string(), previousTier: z.string(), ...effectFields }),
    answer: 'json',
    volatile: [...effectVolatile, 'previousTier'],
    idempotent: true,
    readOnly: false,
    audit: { action: 'tier_changed', resourceType: 'tenant' },
    example: { tier: 'pro', userId: 'user_0198f2a07c117b3a9d4e2f6a1c0b5e77' },
    async run(context, { tier, ...named }) {
      const tx = writing(context);
      const { principal, requestId } = context;
      const ownerId = ownerOf(principal, named);
      const tiers = await tx.selectFrom('tiers').select('name').orderBy('name').execute();
      const names = tiers.map(({ name }) => name);
      if (!names.includes(tier)) throw invalid('tier', `must be one of ${names.join(', ')}`);
      const actorId = principal.userId ?? principal.ownerId;
      const { rows } = await sql<{ previous_tier: string }>`
        select * from set_owner_tier(${ownerId}, ${tier}, ${clerk?.issuer ?? null}, ${actorId}, ${requestId})`.execute(
        tx,
      );
      const [row] = rows;
      if (row === undefined) throw new AppError('not_found', `There is no tenant ${ownerId}.`);
      const previousTier = row.previous_tier;
      context.audit.resourceId = ownerId;
      context.audit.changes = { before: previousTier, after: tier };
      const change = { ownerIds: [ownerId], tags: tagsOf(ownerId) };
      return withEffect(invalidations, context, change, { ownerId, tier, previousTier });
    },
  });

/** Whose tier it is. Throws `invalid_input` where two are named, or none by somebody who acts for nobody. */
function ownerOf(principal: Principal, { userId, orgId }: Pick<z.infer<typeof input>, 'userId' | 'orgId'>): string {
  if (userId !== undefined && orgId !== undefined) throw invalid('orgId', 'cannot be given beside userId');
  const ownerId = userId ?? orgId ?? principal.orgId ?? principal.userId;
  if (ownerId === null) throw invalid('userId', 'say whose tier it is, by this or by orgId');
  return ownerId;
}

function invalid(path: string, message: string): AppError {
  return new AppError('invalid_input', `${path}: ${message}`, { details: { issues: [{ path, message }] } });
}
