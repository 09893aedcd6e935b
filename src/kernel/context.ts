import type { Transaction } from '../platform/postgres.ts';
import { AppError } from './errors.ts';

/** What a credential may be allowed to do. Keys of a tenant never hold `admin:*`. */
export const tenantPermissions = ['tools:read', 'tools:write', 'keys:read', 'keys:write', 'usage:read'] as const;
export const adminPermissions = ['admin:read', 'admin:write'] as const;
export type TenantPermission = (typeof tenantPermissions)[number];
export type Permission = TenantPermission | (typeof adminPermissions)[number];

export type OrganizationRole = 'owner' | 'admin' | 'member' | 'viewer';

/** What a role in an organization may do; a plain member's `keys:*` reach its own keys only. */
export const rolePermissions: Readonly<Record<OrganizationRole, readonly TenantPermission[]>> = {
  owner: tenantPermissions,
  admin: tenantPermissions,
  member: tenantPermissions,
  viewer: ['keys:read', 'usage:read'],
};

/** What a service that signs its calls may do, for itself and for the tenants it calls for. */
export const servicePermissions: readonly TenantPermission[] = ['tools:read', 'tools:write'];

/** Ceilings of an owner, already resolved from tier and overrides. `null` means none. */
export interface OwnerLimits {
  readonly requestsPerMinute: number | null;
  readonly requestsPerMonth: number | null;
  readonly maxApiKeys: number;
}

/** The key a call came with. `id` is the family's, which survives rotation. */
export interface KeyIdentity {
  readonly id: string;
  readonly secretId: string;
  readonly name: string;
  readonly prefix: string;
  readonly environment: 'live' | 'test';
  readonly expiresAt: Date | null;
  readonly requestsPerMinute: number | null;
  readonly requestsPerMonth: number | null;
  /** Networks the key may be used from; none named means any. */
  readonly allowedCidrs: readonly string[];
  /** True once the secret was found in public: it is known, and allowed nothing. */
  readonly leaked: boolean;
}

/** Who calls, resolved once by a transport's `authenticate` and then only read. */
export interface Principal {
  readonly kind: 'api_key' | 'session' | 'service' | 'operator';
  /** Organization when one is active, else the user: who owns the data and pays. A service or operator may stand for none. */
  readonly ownerId: string;
  /** Null where no person stands behind the call: a service, or the operator of the installation. */
  readonly userId: string | null;
  readonly orgId: string | null;
  readonly role: OrganizationRole | null;
  readonly permissions: ReadonlySet<Permission>;
  readonly tier: string;
  readonly limits: OwnerLimits;
  readonly key: KeyIdentity | null;
  /** Name of the service that signed the call. */
  readonly service: string | null;
  /** What an OAuth access token was issued for; `permissions` are cut to it. Null for all other credentials. */
  readonly scopes: ReadonlySet<string> | null;
}

/** The person behind a call. Throws `forbidden` for a service and for the operator, who are nobody's colleague. */
export function personOf(principal: Principal): string {
  if (principal.userId === null) throw new AppError('forbidden', 'This is for people and their API keys.');
  return principal.userId;
}

export type TransportName = 'http' | 'mcp' | 'cli';

/** Where a call came from, for the audit trail and the log. */
export interface Call {
  readonly principal: Principal;
  readonly requestId: string;
  readonly transport: TransportName;
  readonly ipAddress: string | null;
  readonly userAgent: string | null;
  /** Aborted when the caller is gone or the server gives the call up. */
  readonly signal: AbortSignal | null;
}

/** What a write says about itself for its audit row. Never a secret. */
export interface AuditNote {
  resourceId?: string;
  changes?: Record<string, unknown>;
}

/** What an operation's `run` gets beside its input. */
export interface Context extends Call {
  /** The transaction a write runs in, audit row included, bound to the caller's tenant. Absent on read-only operations. */
  readonly tx: Transaction | null;
  /** Filled by a write while it runs. */
  readonly audit: AuditNote;
  /** Work to do once the write is durable, before the answer is given (for example telling other instances). */
  afterCommit(work: () => Promise<void> | void): void;
}

/** The open transaction of a write; a programming error when the operation is declared read-only. */
export function writing(context: Context): Transaction {
  if (context.tx === null) throw new Error('a read-only operation asked for its write transaction');
  return context.tx;
}

/** What a request says about who it comes from; every provider of identity reads it from here. */
export interface Credentials {
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly method: string;
  /** Path and query exactly as they were sent, which a signature covers. */
  readonly target: string;
  /** The caller's address as far as it is trusted; null where there is none. */
  readonly ipAddress: string | null;
  /** The raw body, read at most once and only when it is asked for. Rejects with an AppError where it cannot be read. */
  readonly body: () => Buffer | Promise<Buffer>;
}

/**
 * The seam between transports and whoever can vouch for a caller. Answers at once where the principal is cached.
 * Throws AppError `unauthenticated` with the same message for anything unknown, expired or revoked.
 */
export type Authenticate = (credentials: Credentials) => Principal | Promise<Principal>;
