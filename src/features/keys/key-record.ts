import { sql } from 'kysely';
import { jsonArrayFrom } from 'kysely/helpers/postgres';
import { z } from 'zod';
import { type Context, type Permission, type TenantPermission, tenantPermissions } from '../../kernel/context.ts';
import { AppError } from '../../kernel/errors.ts';
import { liesWithin, readCidr } from '../../lib/cidr.ts';
import type { Transaction } from '../../platform/postgres.ts';
import { SECRETS_SHOWN_MAX, secretColumns, secretSchema, toSecretRecord } from './secret-record.ts';

/** How a key family is read and shown, everywhere the same. The secret itself is never part of it. */

export const permissionsSchema = z
  .array(z.enum(tenantPermissions))
  .min(1)
  .max(tenantPermissions.length)
  .refine((list) => new Set(list).size === list.length, 'names a permission twice');

export const nameSchema = z
  .string()
  .min(1)
  .max(100)
  // Looked through twice at most, whatever the length: one expression for both demands would take its square.
  .regex(/^(?=[^\p{Cc}]*\S)[^\p{Cc}]+$/u, 'must hold something visible and no control characters')
  // PostgreSQL keeps no half of a surrogate pair.
  .refine((name) => name.isWellFormed(), 'must be well-formed Unicode');

/** A key's own lower limit; above the owner's it has no effect. */
export const ownLimitSchema = z.int().min(1).max(1_000_000_000).nullable();

/** What the table takes, too. Whoever needs more networks than that needs another boundary than a list at each key. */
const CIDRS_MAX = 20;
/** The longest IPv6 address with an IPv4 tail, and `/128`. */
const CIDR_LENGTH_MAX = 49;

const cidrSchema = z
  .string()
  .max(CIDR_LENGTH_MAX)
  .transform((text, { addIssue }) => {
    const reading = readCidr(text);
    if ('cidr' in reading) return reading.cidr;
    addIssue(reading.problem);
    return z.NEVER;
  });

export const allowedCidrsSchema = z
  .array(cidrSchema)
  .max(CIDRS_MAX)
  .refine((list) => new Set(list).size === list.length, 'names a network twice');

export const keySchema = z.object({
  id: z.uuid(),
  name: z.string(),
  keyPrefix: z.string(),
  environment: z.enum(['live', 'test']),
  permissions: z.array(z.enum(tenantPermissions)),
  status: z.enum(['active', 'expired', 'revoked']),
  requestsPerMinute: z.int().nullable(),
  requestsPerMonth: z.int().nullable(),
  allowedCidrs: z.array(z.string()).describe('Networks the key may be used from; none named means any'),
  createdBy: z.string(),
  createdAt: z.iso.datetime(),
  updatedAt: z.iso.datetime(),
  expiresAt: z.iso.datetime().nullable(),
  revokedAt: z.iso.datetime().nullable(),
  lastUsedAt: z.iso.datetime().nullable().describe('Last use of any secret; other instances tell theirs once a minute'),
  secrets: z
    .array(secretSchema)
    .describe('The newest secrets. Uses are counted in memory: those of other instances may be a minute late'),
});

export type KeyRecord = z.infer<typeof keySchema>;

export const keyIdSchema = z.uuid().describe('The public id of the key');

/** Families the caller may see, except those long gone: all of the owner's, but a plain member of an organization sees its own only. */
export function visibleFamilies(tx: Transaction, context: Context) {
  const { principal } = context;
  const query = tx
    .selectFrom('api_key_families as family')
    .where('family.owner_id', '=', principal.ownerId)
    .where('family.tombstoned_at', 'is', null)
    .select((builder) => [
      'family.id',
      'family.name',
      'family.environment',
      'family.permissions',
      'family.requests_per_minute',
      'family.requests_per_month',
      'family.allowed_cidrs',
      'family.user_id',
      'family.created_at',
      'family.updated_at',
      'family.expires_at',
      'family.revoked_at',
      jsonArrayFrom(
        builder
          .selectFrom('api_keys as secret')
          .whereRef('secret.family_id', '=', 'family.id')
          .where('secret.owner_id', '=', principal.ownerId)
          .select(secretColumns)
          // The one that was not rotated out comes first: nulls are the greatest.
          .orderBy('secret.superseded_at', 'desc')
          .orderBy('secret.id', 'desc')
          .limit(SECRETS_SHOWN_MAX),
      ).as('secrets'),
      builder
        .selectFrom('api_keys as secret')
        .whereRef('secret.family_id', '=', 'family.id')
        .where('secret.owner_id', '=', principal.ownerId)
        .select(sql<Date | null>`max(secret.last_used_at)`.as('last_used_at'))
        .as('last_used_at'),
    ]);
  return principal.role === 'member' ? query.where('family.user_id', '=', principal.userId) : query;
}

export type FamilyRow = Awaited<ReturnType<ReturnType<typeof visibleFamilies>['executeTakeFirstOrThrow']>>;

/** The public record of a row, as of the moment given. */
export function toKeyRecord(row: FamilyRow, nowMs: number): KeyRecord {
  const expired = row.expires_at !== null && row.expires_at.getTime() <= nowMs;
  const ended = row.revoked_at !== null || expired;
  return {
    id: row.id,
    name: row.name,
    keyPrefix: row.secrets[0]?.key_prefix ?? '',
    environment: row.environment as KeyRecord['environment'],
    permissions: row.permissions as TenantPermission[],
    status: row.revoked_at !== null ? 'revoked' : expired ? 'expired' : 'active',
    requestsPerMinute: toNumber(row.requests_per_minute),
    requestsPerMonth: toNumber(row.requests_per_month),
    allowedCidrs: row.allowed_cidrs,
    createdBy: row.user_id,
    createdAt: row.created_at.toISOString(),
    updatedAt: row.updated_at.toISOString(),
    expiresAt: row.expires_at?.toISOString() ?? null,
    revokedAt: row.revoked_at?.toISOString() ?? null,
    lastUsedAt: row.last_used_at?.toISOString() ?? null,
    secrets: row.secrets.map((secret) => toSecretRecord(secret, { ended, expiresAt: row.expires_at }, nowMs)),
  };
}

/** BIGINT arrives as text; our limits stay far below 2^53. */
export function toNumber(value: string | number | bigint | null): number | null {
  return value === null ? null : Number(value);
}

/** What a key shall be or become, as far as it matters who asks; undefined is not asked for. */
export interface AskedOfKey {
  readonly permissions?: readonly Permission[] | undefined;
  readonly environment?: 'live' | 'test' | undefined;
  readonly expiresAt?: Date | null | undefined;
  readonly requestsPerMinute?: number | null | undefined;
  readonly requestsPerMonth?: number | null | undefined;
  readonly allowedCidrs?: readonly string[] | undefined;
}

/**
 * Refuses what is more than the caller itself has: nobody hands on a permission that it lacks, and a key makes no key, nor
 * turns itself into one, that is billed where it is not, outlives it, passes its own limits or is let in from where it is
 * not. Throws `forbidden`.
 */
export function assertNotStronger(context: Context, asked: AskedOfKey): void {
  const { permissions, key } = context.principal;
  const missing = (asked.permissions ?? []).filter((permission) => !permissions.has(permission));
  if (missing.length > 0) {
    throw new AppError('forbidden', `A key can hold only what its creator holds; missing here: ${missing.join(', ')}.`);
  }
  if (key === null) return;
  if (key.environment === 'test' && asked.environment === 'live') {
    throw new AppError('forbidden', 'A test key makes only test keys.');
  }
  if (exceeds(asked.expiresAt, key.expiresAt)) {
    throw new AppError(
      'forbidden',
      `This key expires, so what it makes expires no later: expiresAt ${key.expiresAt?.toISOString()} at most.`,
    );
  }
  for (const name of ['requestsPerMinute', 'requestsPerMonth'] as const) {
    if (exceeds(asked[name], key[name])) {
      throw new AppError(
        'forbidden',
        `This key has a limit of its own, so what it makes has one too: ${name} ${key[name]} at most.`,
      );
    }
  }
  const { allowedCidrs } = asked;
  if (allowedCidrs === undefined || key.allowedCidrs.length === 0) return;
  if (allowedCidrs.length === 0 || !liesWithin(allowedCidrs, key.allowedCidrs)) {
    throw new AppError(
      'forbidden',
      `This key may be used from ${key.allowedCidrs.join(', ')} only, so what it makes names allowedCidrs within that.`,
    );
  }
}

/** Whether a bound asked for is wider than the caller's own; null is none at all. */
function exceeds<Bound extends Date | number>(asked: Bound | null | undefined, own: Bound | null): boolean {
  return asked !== undefined && own !== null && (asked === null || asked > own);
}
