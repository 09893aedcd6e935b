import { sql } from 'kysely';
import { z } from 'zod';
import { adminPermissions, type Permission } from '../../kernel/context.ts';
import { defineOperation, pageInput, pageOf } from '../../kernel/operation.ts';
import { readEmail } from './find-person.ts';
import type { OperatorParts } from './operator.ts';
import { pageOfIds } from './page-of-ids.ts';

interface AdministratorRow {
  readonly user_id: string;
  readonly email_ciphertext: Buffer | null;
  readonly platform_permissions: Permission[];
  readonly is_active: boolean;
  readonly suspended_at: Date | null;
}

/** The administrators of the platform. Their emails are shown, for somebody has to know who they are. */
export const listAdmins = (parts: OperatorParts) =>
  defineOperation({
    name: 'admin.list',
    route: { method: 'GET', path: '/admin/people' },
    summary: 'List the administrators of the platform',
    permission: 'admin:read',
    callers: ['operator'],
    audience: 'operator',
    transports: ['cli'],
    cost: 0,
    input: z.strictObject(pageInput),
    output: pageOf(
      z.object({
        id: z.string(),
        email: z.string().nullable(),
        permissions: z.array(z.enum(adminPermissions)),
        active: z.boolean().describe('False for one whose account is closed'),
        suspendedAt: z.iso.datetime().nullable(),
      }),
    ),
    answer: 'page',
    idempotent: true,
    readOnly: true,
    example: {},
    run: (context, page) =>
      parts.database.read(context.principal, (tx) =>
        pageOfIds(
          page,
          async (after, limit) =>
            (await sql<AdministratorRow>`select * from list_administrators(${after}, ${limit})`.execute(tx)).rows,
          (row) => ({
            id: row.user_id,
            email: readEmail(row.email_ciphertext, row.user_id, parts.dataKeys),
            permissions: adminPermissions.filter((permission) => row.platform_permissions.includes(permission)),
            active: row.is_active,
            suspendedAt: row.suspended_at?.toISOString() ?? null,
          }),
        ),
      ),
  });
