import { emailSchema, slugSchema } from '../../features/tenants/local-token.ts';
import { ORG_ID, ORG_SLUG, USER_ID } from '../../features/tenants/tenant-ids.ts';
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

/** A person as it is named where an identity provider knows people: by what the provider's tokens have made known here. */
export interface NamedPerson {
  /** Email or id. */
  readonly person: string;
  /** Slug or id. */
  readonly org: string | undefined;
}

/** The person that `--user` and `--org` name among those who have signed in. Throws UsageError when they name none. */
export function readNamedPerson(user: string, org: string | undefined): NamedPerson {
  const person = USER_ID.test(user) ? user : user.toLowerCase();
  if (!USER_ID.test(person) && !emailSchema.safeParse(person).success) {
    throw new UsageError('--user must be an email address or user_...');
  }
  if (org !== undefined && !ORG_ID.test(org) && !ORG_SLUG.test(org)) {
    throw new UsageError('--org must be the slug of an organization or org_...');
  }
  return { person, org };
}
