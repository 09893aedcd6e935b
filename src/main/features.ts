import { createKeys, type KeysParts } from '../features/keys/index.ts';
import { createMarket, type MarketParts } from '../features/market/index.ts';
import { type ClerkSyncParts, createClerkSync } from '../features/tenants/index.ts';
import { createUsage, type UsageParts } from '../features/usage/index.ts';
import type { Endpoint } from '../kernel/endpoint.ts';
import type { Job } from '../kernel/job.ts';
import type { Feature, Operation } from '../kernel/operation.ts';

/** Every feature. One that is not named here does not exist. */
export function createFeatures(parts: {
  keys: KeysParts;
  market: MarketParts;
  usage: UsageParts;
  clerk: ClerkSyncParts;
}): {
  readonly operations: readonly Operation[];
  readonly endpoints: readonly Endpoint[];
  readonly jobs: readonly Job[];
} {
  const features: Feature[] = [
    createMarket(parts.market),
    createKeys(parts.keys),
    createUsage(parts.usage),
    createClerkSync(parts.clerk),
  ];
  return {
    operations: features.flatMap((feature) => feature.operations),
    endpoints: features.flatMap((feature) => feature.endpoints ?? []),
    jobs: features.flatMap((feature) => feature.jobs ?? []),
  };
}
