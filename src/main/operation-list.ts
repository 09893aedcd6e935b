import type { Operation } from '../kernel/operation.ts';
import { createFeatures } from './features.ts';

/**
 * The operations for reading: names, schemas, summaries, examples. Needs no database and no configuration; running one
 * of these throws.
 */
export function describeOperations(): readonly Operation[] {
  return createFeatures({
    keys: absent(),
    market: { sources: ['simulated'], apiKeys: {}, cache: absent(), wallClockMs: absent() },
    tenants: absent(),
    operator: absent(),
    usage: absent(),
    leaks: absent(),
    clerk: {
      database: absent(),
      dataKeys: absent(),
      invalidations: absent(),
      issuer: null,
      webhookSecret: undefined,
    },
  }).operations;
}

/** A part that may be passed on but not used. */
function absent<Part extends object>(): Part {
  const refuse = () => {
    throw new Error('this operation was made to be described, not to be run');
  };
  return new Proxy(refuse, { get: () => absent() }) as unknown as Part;
}
