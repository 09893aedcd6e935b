import { z } from 'zod';
import { type Context, writing } from '../../kernel/context.ts';
import type { Change, Invalidations } from './invalidations.ts';
import type { Tag } from './principal-cache.ts';

/** What the answer to a change of rights says about where it holds. */
export const effectFields = {
  effectiveOn: z.int().describe('Live instances that are known to apply it'),
  of: z.int().describe('Live instances'),
  ms: z.int().describe('Milliseconds it took to know'),
};

/** Fields in which two such answers may differ. */
export const effectVolatile = ['effectiveOn', 'of', 'ms'] as const;

/** The tags under which anything is remembered of that owner: a person also acts for organizations. */
export function tagsOf(ownerId: string): readonly Tag[] {
  const ofOwner: Tag = `owner:${ownerId}`;
  return ownerId.startsWith('user_') ? [ofOwner, `user:${ownerId}`] : [ofOwner];
}

/** Announces the change in its own transaction; the answer is given once every instance applies it, or after a bounded wait. */
export async function withEffect<Answer extends object>(
  invalidations: Invalidations,
  context: Context,
  change: Change,
  fields: Answer,
) {
  const announcement = await invalidations.announce(writing(context), change);
  const answer = { ...fields, effectiveOn: 0, of: 0, ms: 0 };
  context.afterCommit(async () => void Object.assign(answer, await announcement.settle()));
  return answer;
}
