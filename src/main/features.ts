import { createKeys, type KeysParts } from '../features/keys/index.ts';
import { createLeaks, type LeaksParts } from '../features/leaks/index.ts';
import { createMarket, type MarketParts } from '../features/market/index.ts';
import { createServices } from '../features/services/index.ts';
import {
  type ClerkSyncParts,
  createClerkSync,
  createOperatorCommands,
  createTenants,
  type OperatorParts,
  type TenantsParts,
} from '../features/tenants/index.ts';
import { createUsage, type UsageParts } from '../features/usage/index.ts';
import type { Endpoint } from '../kernel/endpoint.ts';
import type { Job } from '../kernel/job.ts';
import type { Feature, Operation } from '../kernel/operation.ts';

/** Every feature. One that is not named here does not exist. */
export function createFeatures(parts: {
  keys: KeysParts;
  clerk: ClerkSyncParts;
  leaks: LeaksParts;
  market: MarketParts;
  operator: OperatorParts;
  tenants: TenantsParts;
  usage: UsageParts;
}): {
  readonly operations: readonly Operation[];
  readonly endpoints: readonly Endpoint[];
  readonly jobs: readonly Job[];
} {
  const features: Feature[] = [
    createMarket(parts.market),
    createKeys(parts.keys),
    createTenants(parts.tenants),
    createUsage(parts.usage),
    createServices(),
    createLeaks(parts.leaks),
    createOperatorCommands(parts.operator),
    createClerkSync(parts.clerk),
  ];
  return {
    operations: features.flatMap((feature) => feature.operations),
    endpoints: features.flatMap((feature) => feature.endpoints ?? []),
    jobs: features.flatMap((feature) => feature.jobs ?? []),
  };
}
