import { z } from 'zod';
import { adminPermissions } from '../../kernel/context.ts';
import { AppError } from '../../kernel/errors.ts';
import { defineOperation } from '../../kernel/operation.ts';
import { EnvelopeError, open } from '../../lib/envelope.ts';
import type { TenantsParts } from './index.ts';
import { organizationSchema, presentPerson } from './present-person.ts';

const output = z.object({
  id: z.string(),
  email: z.string().nullable().describe('Null where the identity provider has told of none'),
  firstName: z.string().nullable(),
  lastName: z.string().nullable(),
  tier: z.string().describe("The person's own; that of an organization stands with it"),
  createdAt: z.iso.datetime(),
  lastLoginAt: z.iso.datetime().nullable(),
  platformPermissions: z.array(z.enum(adminPermissions)),
  organization: organizationSchema.nullable().describe('The one the person acts in'),
});

/** Who is signed in. */
export const getProfile = (parts: TenantsParts) =>
  defineOperation({
    name: 'users.profile',
    route: { method: 'GET', path: '/user/profile' },
    summary: 'Show who is signed in, and the organization they act in',
    permission: null,
    callers: ['session', 'operator'],
    audience: 'tenant',
    transports: ['http', 'cli'],
    cost: 0,
    input: z.strictObject({}),
    output,
    answer: 'json',
    volatile: ['lastLoginAt'],
    idempotent: true,
    readOnly: true,
    example: {},
    async run({ principal }) {
      const userId = presentPerson(principal);
      const { orgId, role } = principal;
      const [user, organization] = await parts.database.read(principal, async (tx) => [
        await tx
          .selectFrom('users')
          .where('id', '=', userId)
          .select([
            'id',
            'email_ciphertext',
            'first_name_ciphertext',
            'last_name_ciphertext',
            'tier',
            'created_at',
            'last_login_at',
            'platform_permissions',
          ])
          .executeTakeFirst(),
        orgId === null
          ? undefined
          : await tx
              .selectFrom('organizations')
              .where('id', '=', orgId)
              .select(['id', 'name', 'slug'])
              .executeTakeFirst(),
      ]);
      if (user === undefined) throw new AppError('not_found', 'This person is not known any more.');
      const personal = (column: 'email' | 'first_name' | 'last_name') =>
        opened(parts, user[`${column}_ciphertext`], { table: 'users', column, row: user.id });
      return {
        id: user.id,
        email: personal('email'),
        firstName: personal('first_name'),
        lastName: personal('last_name'),
        tier: user.tier,
        createdAt: user.created_at.toISOString(),
        lastLoginAt: user.last_login_at?.toISOString() ?? null,
        platformPermissions: adminPermissions.filter((permission) => user.platform_permissions.includes(permission)),
        organization: organization === undefined || role === null ? null : { ...organization, role },
      };
    },
  });

/** What a personal column holds. One that cannot be opened is told to the log, and the rest is answered all the same. */
function opened(
  { dataKeys, log }: TenantsParts,
  sealed: Buffer | null,
  context: { table: string; column: string; row: string },
): string | null {
  if (sealed === null) return null;
  try {
    return open(sealed, dataKeys, context);
  } catch (error) {
    if (!(error instanceof EnvelopeError)) throw error;
    log.warn({ ...context, reason: error.reason }, 'a personal column cannot be opened');
    return null;
  }
}
