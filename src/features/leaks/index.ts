import type { Feature } from '../../kernel/operation.ts';
import type { Invalidations, Peppers } from '../keys/index.ts';
import { reportLeaks } from './report-leaks.ts';

export interface LeaksParts {
  /** All that a key may be hashed under, newest first. */
  readonly peppers: Peppers;
  readonly invalidations: Invalidations;
  /** Whether a leaked key stays known but is allowed nothing, or is ended. */
  readonly policy: 'restrict' | 'revoke';
}

/** Keys that were found where everybody can read them. */
export function createLeaks(parts: LeaksParts): Feature {
  return { name: 'leaks', operations: [reportLeaks(parts)] };
}
