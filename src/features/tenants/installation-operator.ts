import { adminPermissions, type Principal } from '../../kernel/context.ts';

/** Whose audit trail shows what the operator did; no tenant's id looks like it. */
const OPERATOR_OWNER = 'operator';

/**
 * Whoever runs the command line with the installation's secrets, acting as no person. Stands for no tenant: it holds no keys
 * and has nothing to be metered.
 */
export const installationOperator: Principal = Object.freeze<Principal>({
  kind: 'operator',
  ownerId: OPERATOR_OWNER,
  userId: null,
  orgId: null,
  role: null,
  permissions: new Set(adminPermissions),
  tier: 'none',
  limits: { requestsPerMinute: 0, requestsPerMonth: 0, maxApiKeys: 0 },
  key: null,
  service: null,
  scopes: null,
});
