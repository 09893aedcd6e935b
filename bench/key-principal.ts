// The caller of the benchmarks that need one and no database.
import type { Principal } from '../src/kernel/context.ts';

/** A key and an owner with all four limits, none of which is ever met. */
export function keyPrincipal(): Principal {
  const requests = { requestsPerMinute: Number.MAX_SAFE_INTEGER, requestsPerMonth: Number.MAX_SAFE_INTEGER };
  return {
    kind: 'api_key',
    ownerId: 'user_bench',
    userId: 'user_bench',
    orgId: null,
    role: null,
    permissions: new Set(['tools:read']),
    tier: 'enterprise',
    limits: { ...requests, maxApiKeys: 1 },
    key: {
      id: '019a0000-0000-7000-8000-000000000001',
      secretId: '019a0000-0000-7000-8000-000000000002',
      name: 'bench',
      prefix: 'iora_pk_live_Benc',
      environment: 'live',
      expiresAt: null,
      allowedCidrs: [],
      leaked: false,
      ...requests,
    },
    service: null,
    scopes: null,
  };
}
