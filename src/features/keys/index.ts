import type { Principal } from '../../kernel/context.ts';
import type { LimitState } from '../../kernel/invoke.ts';
import type { Feature } from '../../kernel/operation.ts';
import type { Pepper } from '../../lib/key-hash.ts';
import type { Log } from '../../platform/log.ts';
import type { Database } from '../../platform/postgres.ts';
import { createKey } from './create-key.ts';
import { currentKey } from './current-key.ts';
import { endIdleOverlaps } from './end-idle-overlaps.ts';
import { expireKeys } from './expire-keys.ts';
import { getKey } from './get-key.ts';
import type { Invalidations } from './invalidations.ts';
import type { KeyUse } from './key-use.ts';
import { listKeys } from './list-keys.ts';
import { revokeAllKeys } from './revoke-all-keys.ts';
import { revokeKey } from './revoke-key.ts';
import { rotateKey } from './rotate-key.ts';
import { updateKey } from './update-key.ts';

export { createKeyAuthenticator, unauthenticated } from './authenticate-key.ts';
export { effectFields, effectVolatile, tagsOf, withEffect } from './effect.ts';
export { countByPepper, type InspectionParts, inspectKey } from './inspect-key.ts';
export { createInvalidations, type Invalidations } from './invalidations.ts';
export { createKeyUse } from './key-use.ts';
export { createPrincipalCache, type Loaded, type PrincipalCache, type Tag } from './principal-cache.ts';

/** Peppers by age, newest first: the first hashes new keys, all of them verify. */
export type Peppers = readonly [Pepper, ...Pepper[]];

export interface KeysParts {
  readonly database: Database;
  readonly peppers: Peppers;
  readonly invalidations: Invalidations;
  readonly use: Pick<KeyUse, 'flush' | 'record'>;
  readonly log: Log;
  readonly admission: { states(principal: Principal): Promise<readonly LimitState[]> };
  readonly wallClockMs: () => number;
}

export function createKeys(parts: KeysParts): Feature {
  const operations = [createKey, listKeys, getKey, updateKey, rotateKey, revokeKey, revokeAllKeys, currentKey];
  return {
    name: 'keys',
    operations: operations.map((operation) => operation(parts)),
    jobs: [endIdleOverlaps(parts), expireKeys(parts)],
  };
}
