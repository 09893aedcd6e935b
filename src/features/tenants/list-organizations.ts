import { z } from 'zod';
import { defineOperation, pageInput, pageOf, readCursor } from '../../kernel/operation.ts';
import { encodeCursor } from '../../lib/cursor.ts';
import type { TenantsParts } from './index.ts';
import { organizationSchema, presentPerson } from './present-person.ts';

/** The organizations a person belongs to, as far as they have been seen here. */
export const listOrganizations = (parts: TenantsParts) =>
  defineOperation({
    name: 'users.organizations',
    route: { method: 'GET', path: '/user/organizations' },
    summary: 'List the organizations the signed-in person belongs to',
    permission: null,
    callers: ['session', 'operator'],
    audience: 'tenant',
    transports: ['http', 'cli'],
    cost: 0,
    input: z.strictObject(pageInput),
    output: pageOf(organizationSchema.extend({ tier: z.string(), joinedAt: z.iso.datetime() })),
    answer: 'page',
    idempotent: true,
    readOnly: true,
    example: { limit: 10 },
    async run({ principal }, { limit, cursor }) {
      const userId = presentPerson(principal);
      const after = readCursor(cursor, ['string']);
      const rows = await parts.database.read(principal, (tx) => {
        const query = tx
          .selectFrom('organization_members as member')
          .innerJoin('organizations as organization', 'organization.id', 'member.org_id')
          // The others of the organization acted in are visible too.
          .where('member.user_id', '=', userId)
          .where('organization.is_active', '=', true)
          .orderBy('member.org_id')
          .limit(limit + 1)
          .select([
            'organization.id',
            'organization.name',
            'organization.slug',
            'member.role',
            'organization.tier',
            'member.joined_at',
          ]);
        return (after === undefined ? query : query.where('member.org_id', '>', after[0])).execute();
      });
      const page = rows.slice(0, limit);
      const last = rows.length > limit ? page.at(-1) : undefined;
      return {
        items: page.map(({ role, joined_at: joinedAt, ...organization }) => ({
          ...organization,
          role: organizationSchema.shape.role.parse(role),
          joinedAt: joinedAt.toISOString(),
        })),
        nextCursor: last === undefined ? null : encodeCursor([last.id]),
      };
    },
  });
