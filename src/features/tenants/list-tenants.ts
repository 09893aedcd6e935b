import { sql } from 'kysely';
import { z } from 'zod';
import { defineOperation, pageInput, pageOf } from '../../kernel/operation.ts';
import type { OperatorParts } from './operator.ts';
import { pageOfIds } from './page-of-ids.ts';
import { type TenantRow, tenantFields, toTenant } from './tenant-record.ts';

/** Every organization and every person, without what is personal of them. */
export const listTenants = (parts: OperatorParts) =>
  defineOperation({
    name: 'tenants.list',
    route: { method: 'GET', path: '/tenants' },
    summary: 'List organizations and people',
    permission: 'admin:read',
    callers: ['operator'],
    audience: 'operator',
    transports: ['cli'],
    cost: 0,
    input: z.strictObject(pageInput),
    output: pageOf(z.object(tenantFields)),
    answer: 'page',
    idempotent: true,
    readOnly: true,
    example: { limit: 10 },
    run: (context, page) =>
      parts.database.read(context.principal, (tx) =>
        pageOfIds(
          page,
          async (after, limit) =>
            (await sql<TenantRow>`select * from list_tenants(${after}, ${limit})`.execute(tx)).rows,
          toTenant,
        ),
      ),
  });
