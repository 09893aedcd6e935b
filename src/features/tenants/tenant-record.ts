import { sql } from 'kysely';
import { z } from 'zod';
import { AppError } from '../../kernel/errors.ts';
import type { Transaction } from '../../platform/postgres.ts';
import { type DataKeys, findPerson } from './find-person.ts';
import { ORG_ID, ORG_SLUG, USER_ID } from './tenant-ids.ts';

/** How the operator names tenants and sees them. */

export const tenantInput = {
  tenant: z.string().min(1).max(254).describe('Id or slug of an organization, id or email of a person'),
};

export const tenantFields = {
  id: z.string(),
  kind: z.enum(['organization', 'person']),
  name: z.string().nullable().describe('Of an organization'),
  slug: z.string().nullable(),
  tier: z.string(),
  active: z.boolean().describe('False for one that is closed'),
  suspendedAt: z.iso.datetime().nullable(),
  keys: z.int().describe('Keys that work or only wait for the suspension to end'),
  createdAt: z.iso.datetime(),
};

/** What `list_tenants` answers. */
export interface TenantRow {
  readonly id: string;
  readonly name: string | null;
  readonly slug: string | null;
  readonly tier: string;
  readonly is_active: boolean;
  readonly suspended_at: Date | null;
  readonly created_at: Date;
  readonly keys: number;
}

/** What `show_tenant` answers. */
interface ShownRow extends TenantRow {
  readonly email_ciphertext: Buffer | null;
  readonly issuer: string | null;
  readonly members: number;
  readonly requests_per_minute: number | null;
  readonly requests_per_month: string | null;
  readonly max_api_keys: number;
}

/** A tenant as it is shown. */
export function toTenant(row: TenantRow) {
  return {
    id: row.id,
    kind: row.id.startsWith('org_') ? ('organization' as const) : ('person' as const),
    name: row.name,
    slug: row.slug,
    tier: row.tier,
    active: row.is_active,
    suspendedAt: row.suspended_at?.toISOString() ?? null,
    keys: row.keys,
    createdAt: row.created_at.toISOString(),
  };
}

/** The tenant that is named by id, slug or email. Throws `not_found`. */
export async function findTenant(tx: Transaction, dataKeys: DataKeys, tenant: string): Promise<ShownRow> {
  const id = USER_ID.test(tenant) || ORG_ID.test(tenant) ? tenant : null;
  const [userId, slug] = tenant.includes('@')
    ? [(await findPerson(tx, dataKeys, { person: tenant })).userId, null]
    : [null, id === null && ORG_SLUG.test(tenant) ? tenant : null];
  const { rows } = await sql<ShownRow>`select * from show_tenant(${id ?? userId}, ${slug})`.execute(tx);
  const [row] = rows;
  if (row === undefined) {
    throw new AppError('not_found', `There is no tenant ${tenant}: iora tenants list shows all of them.`);
  }
  return row;
}
