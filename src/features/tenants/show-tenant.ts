import { z } from 'zod';
import { defineOperation } from '../../kernel/operation.ts';
import { readEmail } from './find-person.ts';
import type { OperatorParts } from './operator.ts';
import { findTenant, tenantFields, tenantInput, toTenant } from './tenant-record.ts';

/** One organization or person, with the limits that hold for it. */
export const showTenant = (parts: OperatorParts) =>
  defineOperation({
    name: 'tenants.show',
    route: { method: 'GET', path: '/tenants/{tenant}' },
    summary: 'Show an organization or a person',
    permission: 'admin:read',
    callers: ['operator'],
    audience: 'operator',
    transports: ['cli'],
    cost: 0,
    input: z.strictObject(tenantInput),
    output: z.object({
      ...tenantFields,
      email: z.string().nullable().describe('Of a person'),
      issuer: z.string().nullable().describe('The provider of identity that vouches for it'),
      members: z.int().describe('Of an organization'),
      limits: z.object({
        requestsPerMinute: z.int().nullable(),
        requestsPerMonth: z.int().nullable(),
        maxApiKeys: z.int(),
      }),
    }),
    answer: 'json',
    idempotent: true,
    readOnly: true,
    example: { tenant: 'acme' },
    run: (context, { tenant }) =>
      parts.database.read(context.principal, async (tx) => {
        const row = await findTenant(tx, parts.dataKeys, tenant);
        return {
          ...toTenant(row),
          email: readEmail(row.email_ciphertext, row.id, parts.dataKeys),
          issuer: row.issuer,
          members: row.members,
          limits: {
            requestsPerMinute: row.requests_per_minute,
            requestsPerMonth: row.requests_per_month === null ? null : Number(row.requests_per_month),
            maxApiKeys: row.max_api_keys,
          },
        };
      }),
  });
