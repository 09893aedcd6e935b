import { createKeys, type KeysParts } from '../features/keys/index.ts';
import { createMarket, type MarketParts } from '../features/market/index.ts';
import { createUsage, type UsageParts } from '../features/usage/index.ts';
import type { Operation } from '../kernel/operation.ts';

/** Every feature. One that is not named here does not exist. */
export function createFeatures(parts: {
  keys: KeysParts;
  market: MarketParts;
  usage: UsageParts;
}): readonly Operation[] {
  return [createMarket(parts.market), createKeys(parts.keys), createUsage(parts.usage)].flatMap(
    (feature) => feature.operations,
  );
}
