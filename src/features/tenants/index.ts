import type { Feature } from '../../kernel/operation.ts';
import type { EnvelopeKey } from '../../lib/envelope.ts';
import type { Log } from '../../platform/log.ts';
import type { Database } from '../../platform/postgres.ts';
import { getProfile } from './get-profile.ts';
import { listOrganizations } from './list-organizations.ts';

export { type ClerkSyncParts, createClerkSync } from './clerk-sync.ts';
export { findPerson } from './find-person.ts';
export { createIdentity, type Identity, type IdentityParts } from './identity.ts';
export { installationOperator } from './installation-operator.ts';
export { createLocalIdentity } from './local-identity.ts';
export { LOCAL_ISSUER, signLocalToken } from './local-token.ts';
export { createOperatorCommands, type OperatorParts } from './operator.ts';
export { createPeople, operatorPrincipal, type Person } from './people.ts';
export { createSessions } from './sessions.ts';

export interface TenantsParts {
  readonly database: Database;
  /** All that personal columns may be sealed with. */
  readonly dataKeys: readonly EnvelopeKey[];
  readonly log: Log;
}

export function createTenants(parts: TenantsParts): Feature {
  return { name: 'tenants', operations: [getProfile(parts), listOrganizations(parts)] };
}
