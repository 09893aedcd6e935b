import { hash } from 'node:crypto';
import {
  type KeyIdentity,
  type OrganizationRole,
  type Permission,
  type Principal,
  rolePermissions,
} from '../../kernel/context.ts';
import { AppError } from '../../kernel/errors.ts';
import { parseKey } from '../../lib/key-format.ts';
import { hashKey } from '../../lib/key-hash.ts';
import type { Log } from '../../platform/log.ts';
import type { Database } from '../../platform/postgres.ts';
import { isAllowedAddress } from './allowed-addresses.ts';
import type { Peppers } from './index.ts';
import { toNumber } from './key-record.ts';
import type { KeyUse } from './key-use.ts';
import type { Loaded, PrincipalCache } from './principal-cache.ts';

export interface AuthenticateKeyParts {
  readonly database: Database;
  readonly peppers: Peppers;
  readonly cache: PrincipalCache;
  readonly use: Pick<KeyUse, 'touch'>;
  readonly log: Pick<Log, 'warn'>;
}

/**
 * Verifies an API key: shape, checksum, then look-up by keyed hash. Answers at once from memory where it can. Throws
 * AppError `unauthenticated`, the same for a key that is malformed, unknown, expired or revoked; `forbidden` for one used from an address outside its allow-list.
 */
export function createKeyAuthenticator(
  parts: AuthenticateKeyParts,
): (key: string, ipAddress: string | null) => Principal | Promise<Principal> {
  function answer(principal: Principal | null, ipAddress: string | null): Principal {
    if (principal === null) throw unauthenticated();
    if (principal.key !== null) {
      if (principal.key.allowedCidrs.length > 0) assertAllowed(principal.key, ipAddress);
      parts.use.touch(principal.key);
    }
    return principal;
  }

  return function authenticateKey(key, ipAddress) {
    // Memory is asked first, on every call, so by a plain hash, which is enough for 256 random bits and takes a tenth of the
    // time of the keyed one. What is found there has passed the checks below.
    const credential = hash('sha256', key, 'base64');
    const known = parts.cache.get(credential);
    if (known !== undefined) return answer(known, ipAddress);
    if (parseKey(key) === null) throw unauthenticated();
    return parts.cache.load(credential, () => findKey(parts, key)).then((principal) => answer(principal, ipAddress));
  };
}

/** Throws `forbidden` for an address outside the key's allow-list: its owner has to be able to tell that from a wrong key. */
function assertAllowed(key: KeyIdentity, ipAddress: string | null): void {
  if (isAllowedAddress(key.allowedCidrs, ipAddress)) return;
  throw new AppError('forbidden', `This key may not be used from ${ipAddress ?? 'an unknown address'}.`);
}

/** The one refusal of every credential, so that nobody learns which part of it was wrong. */
export function unauthenticated(): AppError {
  return new AppError('unauthenticated', 'Send a valid credential: Authorization: Bearer <API key or session token>.');
}

/** What `find_api_key` answers. */
export interface FoundKey {
  readonly secret_id: string;
  readonly family_id: string;
  readonly name: string;
  readonly environment: 'live' | 'test';
  readonly permissions: string[];
  readonly key_prefix: string;
  readonly pepper_version: number;
  readonly secret_is_active: boolean;
  readonly secret_expires_at: Date | null;
  readonly secret_revoked_at: Date | null;
  readonly family_expires_at: Date | null;
  readonly family_revoked_at: Date | null;
  readonly user_id: string;
  readonly org_id: string | null;
  readonly owner_id: string;
  readonly family_requests_per_minute: number | null;
  readonly family_requests_per_month: string | null;
  readonly tier: string;
  readonly requests_per_minute: number | null;
  readonly requests_per_month: string | null;
  readonly max_api_keys: number;
  readonly owner_active: boolean;
  readonly creator_active: boolean;
  readonly creator_role: OrganizationRole | null;
  readonly secret_leaked_at: Date | null;
  readonly allowed_cidrs: readonly string[];
  readonly owner_epoch: string;
}

const UNKNOWN: Loaded = { principal: null, tags: [], expiresAtMs: null };

/** The key, under whichever pepper it hangs; undefined when nobody made it. */
export async function lookUpKey(
  { peppers, database }: Pick<AuthenticateKeyParts, 'peppers' | 'database'>,
  key: string,
): Promise<FoundKey | undefined> {
  const [newest] = peppers;
  // The newest is asked once more at the end: another instance may have moved the key to it in between.
  for (const pepper of peppers.length === 1 ? peppers : [...peppers, newest]) {
    const [row] = await database.callWithHash<FoundKey>('find_api_key', hashKey(key, pepper.secret));
    if (row !== undefined) return row;
  }
  return undefined;
}

async function findKey(parts: AuthenticateKeyParts, key: string): Promise<Loaded> {
  const row = await lookUpKey(parts, key);
  if (row === undefined) return UNKNOWN;
  // Upwards only: while instances are switched one by one, those that go before would move it back at every look-up.
  if (row.pepper_version < parts.peppers[0].version) await moveToNewest(parts, key, row);
  return toLoaded(row);
}

/**
 * Whoever shows its key moves it to the newest pepper, so that the older one can be taken away some day. A call never fails or
 * waits for that: where it cannot be done, and where somebody else has the row, the next one tries again.
 */
async function moveToNewest({ database, peppers, log }: AuthenticateKeyParts, key: string, row: FoundKey) {
  const [newest] = peppers;
  try {
    await database.write({ ownerId: row.owner_id, userId: row.user_id }, (tx) =>
      tx
        .updateTable('api_keys')
        .set({ key_hash: hashKey(key, newest.secret), pepper_version: newest.version })
        .where('owner_id', '=', row.owner_id)
        .where('id', '=', (builder) =>
          builder
            .selectFrom('api_keys')
            .where('owner_id', '=', row.owner_id)
            .where('id', '=', row.secret_id)
            .where('pepper_version', '<', newest.version)
            .select('id')
            .forUpdate()
            .skipLocked(),
        )
        .execute(),
    );
  } catch (err) {
    log.warn({ err, keyId: row.family_id }, 'a key could not be moved to the newest pepper');
  }
}

function toLoaded(row: FoundKey): Loaded {
  const expiries = [row.secret_expires_at, row.family_expires_at].filter((moment) => moment !== null);
  const expiresAt = expiries.length === 0 ? null : new Date(Math.min(...expiries.map(Number)));
  const live =
    row.secret_is_active && row.owner_active && row.secret_revoked_at === null && row.family_revoked_at === null;
  return {
    principal: live ? toPrincipal(row, expiresAt) : null,
    tags: [`family:${row.family_id}`, `owner:${row.owner_id}`, `user:${row.user_id}`],
    expiresAtMs: expiresAt?.getTime() ?? null,
    ownerEpoch: toNumber(row.owner_epoch),
  };
}

/** The organization's keys of somebody who left or was suspended go on working, but make and show no keys any more. */
const LEAVER_PERMISSIONS: readonly Permission[] = ['tools:read', 'tools:write', 'usage:read'];

/** What the key was given, as far as its creator may still do it. */
function presentPermissions(row: FoundKey): ReadonlySet<Permission> {
  // Found in public: still known, so that its owner gets a refusal that says what to do, but allowed nothing.
  if (row.secret_leaked_at !== null) return new Set();
  const given = new Set(row.permissions as Permission[]);
  if (row.org_id === null) return given;
  const stays = row.creator_role !== null && row.creator_active;
  const allowed: readonly Permission[] = stays ? rolePermissions[row.creator_role] : LEAVER_PERMISSIONS;
  return new Set(allowed.filter((permission) => given.has(permission)));
}

function toPrincipal(row: FoundKey, expiresAt: Date | null): Principal {
  return Object.freeze<Principal>({
    kind: 'api_key',
    ownerId: row.owner_id,
    userId: row.user_id,
    orgId: row.org_id,
    role: row.org_id === null ? null : (row.creator_role ?? 'member'),
    permissions: presentPermissions(row),
    tier: row.tier,
    limits: {
      requestsPerMinute: row.requests_per_minute,
      requestsPerMonth: toNumber(row.requests_per_month),
      maxApiKeys: row.max_api_keys,
    },
    key: {
      id: row.family_id,
      secretId: row.secret_id,
      name: row.name,
      prefix: row.key_prefix,
      environment: row.environment,
      expiresAt,
      requestsPerMinute: row.family_requests_per_minute,
      requestsPerMonth: toNumber(row.family_requests_per_month),
      allowedCidrs: row.allowed_cidrs,
      leaked: row.secret_leaked_at !== null,
    },
    service: null,
    scopes: null,
  });
}
