import type { Feature } from '../../kernel/operation.ts';
import type { ClerkMetadata } from '../../platform/clerk-metadata.ts';
import type { Log } from '../../platform/log.ts';
import type { Database } from '../../platform/postgres.ts';
import type { Invalidations } from '../keys/index.ts';
import type { DataKeys } from './find-person.ts';
import { grantAdmin } from './grant-admin.ts';
import { listAdmins } from './list-admins.ts';
import { listTenants } from './list-tenants.ts';
import { passOnTiers } from './pass-on-tiers.job.ts';
import { resumeTenant } from './resume-tenant.ts';
import { revokeAdmin } from './revoke-admin.ts';
import { setTier } from './set-tier.ts';
import { showTenant } from './show-tenant.ts';
import { suspendTenant } from './suspend-tenant.ts';

export interface OperatorParts {
  readonly database: Database;
  readonly invalidations: Invalidations;
  readonly dataKeys: DataKeys;
  readonly log: Log;
  /** Whom tiers are passed on to, and what it calls itself as issuer of tokens; null where there is nobody. */
  readonly clerk: { readonly issuer: string; readonly metadata: ClerkMetadata } | null;
}

/** What the operator of the installation does: administrators, tenants, tiers. */
export function createOperatorCommands(parts: OperatorParts): Feature {
  const operations = [
    grantAdmin,
    revokeAdmin,
    listAdmins,
    listTenants,
    showTenant,
    suspendTenant,
    resumeTenant,
    setTier,
  ];
  return {
    name: 'operator',
    operations: operations.map((operation) => operation(parts)),
    jobs: parts.clerk === null ? [] : [passOnTiers({ ...parts, clerk: parts.clerk.metadata })],
  };
}
