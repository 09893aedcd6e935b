import { randomUUID } from 'node:crypto';
import { sql } from 'kysely';
import {
  adminPermissions,
  type OrganizationRole,
  type OwnerLimits,
  type Permission,
  type Principal,
  rolePermissions,
  tenantPermissions,
} from '../../kernel/context.ts';
import { blindIndex, type EnvelopeKey, seal } from '../../lib/envelope.ts';
import type { Database } from '../../platform/postgres.ts';
import { LOCAL_ISSUER } from './local-token.ts';

/** People and organizations as identity providers vouch for them, made known here at their first call. */
export interface People {
  /**
   * The person behind verified claims, created on first sight; safe when many first calls arrive at once. Null for a person
   * whom the provider deleted before they were ever known here.
   */
  resolve(claims: PersonClaims): Promise<Person | null>;
}

/** What a verified token says. A person is (issuer, subject); all else may change. */
export interface PersonClaims {
  readonly issuer: string;
  readonly subject: string;
  /** Only one that the provider has verified: administrators are found by it. */
  readonly email: string | null;
  /** The organization the person acts in. */
  readonly organization: OrganizationClaims | null;
  /** The provider's id of the session, by which it can be revoked. */
  readonly sessionId: string | null;
  /** When the provider vouched for all this; what it has taken back since does not hold. */
  readonly issuedAt: Date;
}

export interface OrganizationClaims {
  /** The provider's own id of the organization, which never changes. */
  readonly externalId: string;
  readonly slug: string | null;
  readonly name: string | null;
  /** Null where the provider knows no roles: then the first to come is owner and the others are members. */
  readonly role: OrganizationRole | null;
}

export interface Person {
  readonly userId: string;
  readonly orgId: string | null;
  readonly ownerId: string;
  readonly role: OrganizationRole | null;
  readonly tier: string;
  readonly limits: OwnerLimits;
  /** False when the person, the organization, the membership or the session is suspended or over. */
  readonly active: boolean;
  readonly ownerEpoch: number;
  readonly platformPermissions: readonly Permission[];
}

/** The principal of a signed-in person; outside an organization a person may do everything with what is their own. */
export function sessionPrincipal(person: Person, admin: boolean): Principal {
  const tenant = person.role === null ? tenantPermissions : rolePermissions[person.role];
  const platform = admin ? adminPermissions : person.platformPermissions;
  return Object.freeze<Principal>({
    kind: 'session',
    ownerId: person.ownerId,
    userId: person.userId,
    orgId: person.orgId,
    role: person.role,
    permissions: new Set<Permission>([...tenant, ...platform]),
    tier: person.tier,
    limits: person.limits,
    key: null,
    service: null,
    scopes: null,
  });
}

/** The principal of an operator who acts as that person: the same rights, shown in the audit trail as what it is. */
export function operatorPrincipal(person: Person): Principal {
  return Object.freeze<Principal>({ ...sessionPrincipal(person, false), kind: 'operator' });
}

/** What `sign_in` and `find_person` answer. */
export interface SignedIn {
  readonly user_id: string;
  readonly org_id: string | null;
  readonly role: OrganizationRole | null;
  readonly tier: string;
  readonly requests_per_minute: number | null;
  readonly requests_per_month: string | null;
  readonly max_api_keys: number;
  readonly user_active: boolean;
  readonly org_active: boolean | null;
  readonly platform_permissions: Permission[];
  readonly owner_epoch: string;
}

/** People kept in PostgreSQL; emails are sealed under the first data key before they leave this process. */
export function createPeople(parts: {
  database: Database;
  dataKeys: readonly [EnvelopeKey, ...EnvelopeKey[]];
}): People {
  const [dataKey] = parts.dataKeys;
  // The oldest, so that people stay who they are when a newer key is put in front.
  const subjectKey = parts.dataKeys.at(-1) ?? dataKey;
  return {
    async resolve(claims) {
      const newUserId = `user_${randomUUID().replaceAll('-', '')}`;
      const newOrgId = `org_${randomUUID().replaceAll('-', '')}`;
      const { organization } = claims;
      const email = claims.email?.trim().toLowerCase() ?? null;
      const index = email === null ? null : blindIndex(email, dataKey);
      // The local provider knows people by their email, which would stand in the clear. Another one's subject is what it says.
      const subject =
        claims.issuer === LOCAL_ISSUER
          ? blindIndex(`subject ${LOCAL_ISSUER} ${claims.subject.trim().toLowerCase()}`, subjectKey).toString('hex')
          : claims.subject;
      return parts.database.call(async (tx) => {
        const { rows } = await sql<SignedIn & { readonly email_differs: boolean }>`
          select * from sign_in(${claims.issuer}, ${subject}, ${claims.sessionId}, ${claims.issuedAt}, ${newUserId}, ${index},
            ${organization?.externalId ?? null}, ${organization?.slug ?? null}, ${organization?.name ?? null}, ${newOrgId},
            ${organization?.role ?? null})`.execute(tx);
        const [row] = rows;
        if (row === undefined) return null;
        if (email !== null && row.email_differs) {
          const sealed = seal(email, dataKey, { table: 'users', column: 'email', row: row.user_id });
          await sql`select keep_email(${row.user_id}, ${sealed}, ${index}, ${dataKey.version}, ${claims.issuedAt})`.execute(
            tx,
          );
        }
        return toPerson(row);
      });
    },
  };
}

/** The person that a row tells of. */
export function toPerson(row: SignedIn): Person {
  return {
    userId: row.user_id,
    orgId: row.org_id,
    ownerId: row.org_id ?? row.user_id,
    role: row.role,
    tier: row.tier,
    limits: {
      requestsPerMinute: row.requests_per_minute,
      requestsPerMonth: row.requests_per_month === null ? null : Number(row.requests_per_month),
      maxApiKeys: row.max_api_keys,
    },
    active: row.user_active && row.org_active !== false,
    ownerEpoch: Number(row.owner_epoch),
    platformPermissions: row.platform_permissions,
  };
}
