import { emailSchema, slugSchema } from '../../features/tenants/local-token.ts';
import { UsageError } from '../../transports/cli/command-errors.ts';

/** The person that `--user` and `--org` name, in lower case. Throws UsageError when they name none. */
export function readPerson(user: unknown, org: unknown): { email: string; org: string | undefined } {
  if (user === undefined) throw new UsageError('say who it is for: --user EMAIL');
  const email = emailSchema.safeParse(typeof user === 'string' ? user.toLowerCase() : user);
  if (!email.success) throw new UsageError('--user must be an email address');
  const slug = slugSchema.optional().safeParse(org);
  if (!slug.success) throw new UsageError(`--org ${slug.error.issues[0]?.message ?? 'is none'}`);
  return { email: email.data, org: slug.data };
}
