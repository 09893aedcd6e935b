import { sql } from 'kysely';
import { type OwnerLimits, type Permission, type Principal, servicePermissions } from '../../kernel/context.ts';
import type { Database } from '../../platform/postgres.ts';
import type { Loaded } from '../keys/index.ts';

/** For whom a service calls: a tenant, whose books the calls are on, or itself. */

const permissions: ReadonlySet<Permission> = new Set(servicePermissions);
/** A service has no limits of a tenant and no keys. */
const NO_LIMITS: OwnerLimits = { requestsPerMinute: null, requestsPerMonth: null, maxApiKeys: 0 };

/** A service that calls for nobody is an owner of its own. */
export function serviceItself(service: string): Principal {
  return principalOf(service, {
    ownerId: `service_${service}`,
    userId: null,
    orgId: null,
    tier: 'service',
    limits: NO_LIMITS,
  });
}

/** What `find_owner` answers. */
interface FoundOwner {
  readonly owner_id: string;
  readonly owner_active: boolean;
  readonly tier: string;
  readonly requests_per_minute: number | null;
  readonly requests_per_month: string | null;
  readonly max_api_keys: number;
  readonly owner_epoch: string;
}

/** The service on behalf of that tenant; a null principal for one that is unknown, deactivated or suspended. */
export async function loadForTenant(database: Database, service: string, tenant: string): Promise<Loaded> {
  const { rows } = await database.call((tx) => sql<FoundOwner>`select * from find_owner(${tenant})`.execute(tx));
  const [row] = rows;
  const isOrganization = tenant.startsWith('org_');
  return {
    principal:
      row?.owner_active === true
        ? principalOf(service, {
            ownerId: row.owner_id,
            userId: isOrganization ? null : row.owner_id,
            orgId: isOrganization ? row.owner_id : null,
            tier: row.tier,
            limits: {
              requestsPerMinute: row.requests_per_minute,
              requestsPerMonth: row.requests_per_month === null ? null : Number(row.requests_per_month),
              maxApiKeys: row.max_api_keys,
            },
          })
        : null,
    tags: isOrganization ? [`owner:${tenant}`] : [`owner:${tenant}`, `user:${tenant}`],
    expiresAtMs: null,
    ownerEpoch: row === undefined ? null : Number(row.owner_epoch),
  };
}

function principalOf(
  service: string,
  owner: Pick<Principal, 'ownerId' | 'userId' | 'orgId' | 'tier' | 'limits'>,
): Principal {
  return Object.freeze<Principal>({
    kind: 'service',
    ...owner,
    role: null,
    permissions,
    key: null,
    service,
    scopes: null,
  });
}
