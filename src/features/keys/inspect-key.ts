import { sql } from 'kysely';
import { parseKey } from '../../lib/key-format.ts';
import type { Database } from '../../platform/postgres.ts';
import { type FoundKey, lookUpKey } from './authenticate-key.ts';
import type { Peppers } from './index.ts';
import { earliest } from './secret-record.ts';

/** What an operator may know of a key that somebody found. The key itself is never part of it. */
export interface KeyInspection {
  /** Whether shape and checksum are those of a key; where not, nothing was looked up. */
  readonly wellFormed: boolean;
  readonly state: 'active' | 'rotated out' | 'ended' | 'leaked' | 'expired' | 'revoked' | 'owner suspended' | 'unknown';
  readonly environment: 'live' | 'test' | null;
  readonly keyPrefix: string | null;
  readonly id: string | null;
  readonly name: string | null;
  readonly ownerId: string | null;
  readonly createdBy: string | null;
  /** From then on this secret is refused, or has been. */
  readonly expiresAt: string | null;
  readonly pepperVersion: number | null;
  /** Last use of this very secret; running servers tell theirs once a minute. */
  readonly lastUsedAt: string | null;
  readonly allowedCidrs: readonly string[];
}

export interface InspectionParts {
  readonly database: Database;
  readonly peppers: Peppers;
}

/** Says what a key is. Reads only: unlike a use, it moves the key to no other pepper and counts nothing. */
export async function inspectKey(parts: InspectionParts, key: string, nowMs: number): Promise<KeyInspection> {
  const parsed = parseKey(key);
  const unknown: KeyInspection = {
    wellFormed: parsed !== null,
    state: 'unknown',
    environment: parsed?.environment ?? null,
    keyPrefix: parsed?.prefix ?? null,
    id: null,
    name: null,
    ownerId: null,
    createdBy: null,
    expiresAt: null,
    pepperVersion: null,
    lastUsedAt: null,
    allowedCidrs: [],
  };
  const found = parsed === null ? undefined : await lookUpKey(parts, key);
  if (found === undefined) return unknown;
  // The look-up answers what every call needs; the rest is read as its owner would.
  const secret = await parts.database.read({ ownerId: found.owner_id, userId: found.user_id }, (tx) =>
    tx
      .selectFrom('api_keys')
      .where('owner_id', '=', found.owner_id)
      .where('id', '=', found.secret_id)
      .select(['last_used_at', 'superseded_at'])
      .executeTakeFirst(),
  );
  const expiresAt = earliest([found.secret_expires_at, found.family_expires_at]);
  return {
    ...unknown,
    state: stateOf(found, secret?.superseded_at ?? null, nowMs),
    id: found.family_id,
    name: found.name,
    ownerId: found.owner_id,
    createdBy: found.user_id,
    expiresAt: expiresAt?.toISOString() ?? null,
    pepperVersion: found.pepper_version,
    lastUsedAt: secret?.last_used_at?.toISOString() ?? null,
    allowedCidrs: found.allowed_cidrs,
  };
}

/** The gravest that holds of it. */
function stateOf(found: FoundKey, supersededAt: Date | null, nowMs: number): KeyInspection['state'] {
  const isPast = (moment: Date | null) => moment !== null && moment.getTime() <= nowMs;
  if (found.family_revoked_at !== null || found.secret_revoked_at !== null) return 'revoked';
  if (isPast(found.family_expires_at)) return 'expired';
  if (!found.secret_is_active || isPast(found.secret_expires_at)) return 'ended';
  if (!found.owner_active) return 'owner suspended';
  if (found.secret_leaked_at !== null) return 'leaked';
  return supersededAt === null ? 'active' : 'rotated out';
}

export interface PepperUse {
  readonly version: number;
  /** Secrets that still work and hang on it. */
  readonly liveSecrets: number;
  /** Whether this process was given that pepper; without it those secrets are refused. */
  readonly configured: boolean;
}

/** Every pepper that is configured or that a live secret hangs on, oldest first. */
export async function countByPepper({ database, peppers }: InspectionParts): Promise<readonly PepperUse[]> {
  const { rows } = await database.call((tx) =>
    sql<{ pepper_version: number; secrets: string }>`select * from count_keys_by_pepper()`.execute(tx),
  );
  const counted = new Map(rows.map((row) => [row.pepper_version, Number(row.secrets)]));
  const configured = new Set(peppers.map(({ version }) => version));
  return [...new Set([...counted.keys(), ...configured])]
    .toSorted((one, other) => one - other)
    .map((version) => ({
      version,
      liveSecrets: counted.get(version) ?? 0,
      configured: configured.has(version),
    }));
}
