import type { JWTPayload } from 'jose';
import { z } from 'zod';
import {
  adminPermissions,
  type OrganizationRole,
  type Permission,
  type Principal,
  type TenantPermission,
  tenantPermissions,
} from '../../kernel/context.ts';
import { emailSchema } from './local-token.ts';

/** What tokens of every provider have in common: how they are opened, and what their claims mean here. */

/** A token as it says of itself, before anybody has verified it. */
export interface UnverifiedToken {
  readonly text: string;
  readonly header: Readonly<Record<string, unknown>> & { readonly kid?: string | undefined };
  readonly payload: JWTPayload;
}

const KEY_ID_LENGTH_MAX = 255;
const TOKEN = /^([\w-]+)\.([\w-]+)\.[\w-]*$/;

/** Opens a JWT without verifying it; null for what is none. How long it may be is bounded by whoever read it. */
export function openUnverified(text: string): UnverifiedToken | null {
  const [, head = '', body = ''] = TOKEN.exec(text) ?? [];
  const [header, payload] = [objectIn(head), objectIn(body)];
  if (header === null || payload === null) return null;
  const { kid } = header;
  if (kid !== undefined && (typeof kid !== 'string' || kid.length > KEY_ID_LENGTH_MAX)) return null;
  return { text, header: header as UnverifiedToken['header'], payload };
}

function objectIn(part: string): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(Buffer.from(part, 'base64url').toString());
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : null;
  } catch {
    return null;
  }
}

/** How far the clocks of an issuer and of this machine may lie apart; both run NTP, and Clerk assumes the same. */
export const CLOCK_SKEW_SECONDS = 5;

/** `typ` of OAuth access tokens (RFC 9068). */
const ACCESS_TOKEN_TYPES: readonly unknown[] = ['at+jwt', 'application/at+jwt'];

/** Whether it is an OAuth access token by its header. */
export function isAccessToken({ header }: UnverifiedToken): boolean {
  return ACCESS_TOKEN_TYPES.includes(header['typ']);
}

/** An id that a provider gives: kept in columns of that length, and in the names of cache entries. */
export const externalIdSchema = z
  .string()
  .min(1)
  .max(255)
  .regex(/^\P{Cc}+$/u)
  // PostgreSQL keeps no half of a surrogate pair.
  .refine((id) => id.isWellFormed());

/** `iat` that has been compared with the clock, as a Date. */
export const issuedAtSchema = z
  .number()
  .min(0)
  .transform((unixSeconds) => new Date(unixSeconds * 1_000));

/** The form that slugs have in the database; others are left out. */
const slugSchema = z.string().regex(/^[a-z0-9][a-z0-9_-]{0,62}$/);

/** A slug that can be kept, else null. */
export function slugOf(claim: unknown): string | null {
  return slugSchema.safeParse(claim).data ?? null;
}

const roleSchema = z.enum(['owner', 'admin', 'member', 'viewer']);

/** The role by its name, after `org:` where the provider says so. One that is not known here gets the least. */
export function roleNamed(name: unknown): OrganizationRole {
  return roleSchema.safeParse(typeof name === 'string' ? name.replace(/^org:/, '') : name).data ?? 'viewer';
}

/** The email, if the token says that the provider has verified it: administrators are found by it. */
export function verifiedEmail(claims: Readonly<Record<string, unknown>>): string | null {
  return claims['email_verified'] === true ? (emailSchema.safeParse(claims['email']).data ?? null) : null;
}

/** Whether `aud` (RFC 7519, section 4.1.3) names that audience. */
export function isMadeFor({ payload }: UnverifiedToken, audience: string): boolean {
  return [payload.aud].flat().includes(audience);
}

/** Permissions by their names, for those that scopes ask for. */
const permissionNames: ReadonlySet<string> = new Set<Permission>([...tenantPermissions, ...adminPermissions]);

/** The scopes of a token that are permissions here: `scope` (RFC 9068) or, as some issuers call it, `scp`. */
export function permissionScopes({ payload }: UnverifiedToken): ReadonlySet<string> {
  const claims = [payload['scope'], payload['scp']].flat();
  const scopes = claims.flatMap((claim) => (typeof claim === 'string' ? claim.split(' ') : []));
  return new Set(scopes.filter((scope) => permissionNames.has(scope)));
}

/** The same person with what the scopes allow, never more than before and nothing of the platform. */
export function limitedTo(scopes: ReadonlySet<string>, principal: Principal): Principal {
  const named = tenantPermissions.filter((permission) => scopes.has(permission));
  return Object.freeze<Principal>({
    ...principal,
    permissions: new Set<TenantPermission>(named.filter((permission) => principal.permissions.has(permission))),
    scopes: new Set<string>(named),
  });
}
