import { z } from 'zod';
import { type Principal, personOf } from '../../kernel/context.ts';
import { AppError } from '../../kernel/errors.ts';

/** An organization as one of its members sees it. */
export const organizationSchema = z.object({
  id: z.string(),
  name: z.string(),
  slug: z.string().nullable(),
  role: z.enum(['owner', 'admin', 'member', 'viewer']),
});

/**
 * The person who is there: an OAuth client that was given tools does not learn who its person is. Throws `forbidden`.
 */
export function presentPerson(principal: Principal): string {
  if (principal.scopes === null) return personOf(principal);
  throw new AppError('forbidden', 'This is for signed-in people; an OAuth access token holds no right to it.');
}
