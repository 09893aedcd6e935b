// The world that the cases of one operation are sent into: a tenant with callers of every kind, keys in every state,
// another tenant whose rows nobody here may see, and owners whose limits are used up.
import { randomBytes, randomUUID } from 'node:crypto';
import { installationOperator, LOCAL_ISSUER, operatorPrincipal } from '../../src/features/tenants/index.ts';
import { adminPermissions, type Principal, servicePermissions, tenantPermissions } from '../../src/kernel/context.ts';
import type { Operation } from '../../src/kernel/operation.ts';
import { signedHeaders } from '../../src/lib/service-signature.ts';
import { type TestApplication, until } from './application.ts';
import type { Reference, ReferenceKind } from './references.ts';

export interface Caller {
  readonly name: string;
  /** What follows `Bearer`; nobody's where the caller signs instead. */
  readonly credential: string;
  /** The headers by which a service signs that request. */
  readonly sign?: (request: { method: string; target: string; body: string | Buffer }) => Record<string, string>;
  /** As whom the credential is known; null for one that nobody knows. */
  readonly principal: Principal | null;
  /** The person on a command line. A key has none there, so it goes by a name of its own and keeps its rights. */
  readonly user: string;
  readonly org: string;
  /** As whom the command line acts. */
  readonly operator: Principal | null;
  /** A limit of the owner is used up or is passed in a moment. */
  readonly exhausted: boolean;
}

export interface World {
  readonly callers: readonly Caller[];
  /** In the name of every key of the other tenant and in nothing else. */
  readonly foreignMark: string;
  /** The owners whose rows are watched. */
  readonly ownerIds: readonly string[];
  /** Signed in as the owner of the tenant, for looking at what became of things. */
  readonly owner: Principal;
  lookUp(reference: Reference): string;
  /** The key itself where the id is that of a live key, made to be looked at; else undefined. */
  liveKey(id: string): string | undefined;
  /** Puts a new live key in the place of one that was revoked. */
  replace(id: string): Promise<void>;
  /** Ends all secrets of the key but the newest, so that it can be rotated again. */
  finishRotation(id: string): Promise<void>;
  /** Takes a revocation of all keys back, which no caller could, so that the keys among the callers work again. */
  revive(): Promise<void>;
  /** What refused calls must not change: the keys of all watched owners, by their number and their last change. */
  state(): Promise<KeysState>;
}

export interface KeysState {
  readonly keys: number;
  readonly revoked: number;
  readonly changedAt: string | null;
}

/** Far above what a run needs, so that limits bite only where they are meant to. */
const AMPLE = { requestsPerMinute: 1_000_000_000, requestsPerMonth: 1_000_000_000, maxApiKeys: 1_000_000 };
const LIVE_KEYS = 6;
const PAGE_SIZES = [1, 2, 5];
/** A service that the application has to know; it calls for the tenant of its world. */
export const signer = { service: 'property', keyId: 'property-1', secret: randomBytes(32) };
/** Request ids of what builds a world begin with this, to tell its usage from that of the cases. */
export const SETUP_REQUEST = 'setup-';

interface MadeKey {
  readonly id: string;
  readonly key: string;
}

/** Builds a world of its own for the cases of `operation`. */
export async function buildWorld(app: TestApplication, operation: Operation): Promise<World> {
  const name = `${operation.name.replace(/\W|_/g, '-')}-${randomUUID().slice(0, 8)}`;
  const slugs = { main: name, foreign: `${name}-f`, spent: `${name}-s`, hurried: `${name}-h`, full: `${name}-k` };
  const email = (who: string, org: string) => `${who}@${org}.example.com`;

  async function output<T>(operationName: string, principal: Principal, input: unknown): Promise<T> {
    const outcome = await app.call(operationName, principal, input, { requestId: `${SETUP_REQUEST}${randomUUID()}` });
    if (!outcome.ok) throw outcome.error;
    return outcome.output as T;
  }
  const createKey = (owner: Principal, input: Record<string, unknown>) => output<MadeKey>('keys.create', owner, input);
  const permissions = [...tenantPermissions];

  /** Its owner, who signs in after the limits are set, since a session remembers those it began with. */
  async function organization(org: string, limits: typeof AMPLE) {
    const { orgId } = await app.session(email('founder', org), org);
    await app.sql(
      `UPDATE organizations SET max_requests_per_minute = $2, max_requests_per_month = $3, max_api_keys = $4 WHERE id = $1`,
      [orgId, limits.requestsPerMinute, limits.requestsPerMonth, limits.maxApiKeys],
    );
    return person('owner', org);
  }

  async function person(
    role: 'owner' | 'member' | 'viewer',
    org: string,
    user = email(role, org),
  ): Promise<Caller & { principal: Principal }> {
    const principal = await app.member(user, org, role);
    const known = await app.app.people.resolve({
      issuer: LOCAL_ISSUER,
      subject: user,
      email: user,
      organization: { externalId: org, slug: org, name: org, role: null },
      sessionId: null,
      issuedAt: new Date(),
    });
    if (known === null) throw new Error(`${user} is gone`);
    const credential = await app.token(user, org);
    const operator = operatorPrincipal(known);
    return { name: role, credential, principal, user, org, operator, exhausted: false };
  }

  /** An owner of the organization who also administers the platform. */
  async function administrator(org: string): Promise<Caller> {
    const user = email('administrator', org);
    const { userId } = await app.session(user);
    await app.sql('UPDATE users SET platform_permissions = $2 WHERE id = $1', [userId, adminPermissions]);
    return { ...(await person('owner', org, user)), name: 'administrator' };
  }

  async function keyCaller(
    who: string,
    { org, principal: owner }: { org: string; principal: Principal },
    input: Record<string, unknown> = { permissions },
    exhausted = false,
  ): Promise<Caller> {
    const { key } = await createKey(owner, { name: `caller ${who}`, ...input });
    const principal = await app.bearer(key);
    const user = email(who.replaceAll(' ', '-'), org);
    return { name: who, credential: key, principal, user, org, operator: principal, exhausted };
  }

  const owner = await organization(slugs.main, AMPLE);
  const member = await person('member', slugs.main);
  const viewer = await person('viewer', slugs.main);
  const foreigner = await organization(slugs.foreign, AMPLE);
  const spent = await organization(slugs.spent, { ...AMPLE, requestsPerMonth: 0 });
  const hurried = await organization(slugs.hurried, { ...AMPLE, requestsPerMinute: 1 });
  const full = await organization(slugs.full, { ...AMPLE, maxApiKeys: 1 });
  await createKey(full.principal, { name: 'the only one' });
  await output('market.get_price', hurried.principal, { symbol: 'BTC' });

  const foreignMark = `foreign ${randomUUID()}`;
  const live: MadeKey[] = [];
  for (let index = 0; index < LIVE_KEYS; index += 1) live.push(await createKey(owner.principal, { name: `k${index}` }));
  const revoked = await createKey(owner.principal, { name: 'revoked' });
  await output('keys.revoke', owner.principal, { id: revoked.id });
  const expired = await createKey(owner.principal, { name: 'expired' });
  await app.sql(`UPDATE api_key_families SET expires_at = now() - interval '1 day' WHERE id = $1`, [expired.id]);
  const colleague = await createKey(member.principal, { name: 'of a colleague' });
  const foreign = [
    await createKey(foreigner.principal, { name: foreignMark }),
    await createKey(foreigner.principal, { name: foreignMark, permissions }),
  ];

  async function cursors(principal: Principal): Promise<string[]> {
    const made: string[] = [];
    for (const operationName of ['keys.list', 'market.list_symbols']) {
      for (const limit of PAGE_SIZES) {
        const page = await output<{ nextCursor: string | null }>(operationName, principal, { limit });
        if (page.nextCursor !== null) made.push(page.nextCursor);
      }
    }
    return made;
  }

  const service: Caller = {
    name: 'service',
    credential: '',
    sign: (request) => signedHeaders({ ...signer, ...request, tenant: owner.principal.ownerId }, Date.now()),
    principal: {
      ...owner.principal,
      kind: 'service',
      userId: null,
      role: null,
      permissions: new Set(servicePermissions),
    },
    user: '',
    org: slugs.main,
    operator: null,
    exhausted: false,
  };

  const ownCursors = await cursors(owner.principal);
  const foreignCursors = await cursors(foreigner.principal);
  const pools: Readonly<Record<ReferenceKind, () => readonly string[]>> = {
    liveKey: () => live.map(({ id }) => id),
    revokedKey: () => [revoked.id],
    expiredKey: () => [expired.id],
    colleagueKey: () => [colleague.id],
    foreignKey: () => foreign.map(({ id }) => id),
    person: () => [owner, member, foreigner].flatMap(({ principal }) => principal.userId ?? []),
    cursor: () => ownCursors,
    foreignCursor: () => foreignCursors,
  };
  const ownerIds = [owner, foreigner, spent, hurried, full].map(({ principal }) => principal.ownerId);

  const callers: readonly Caller[] = [
    owner,
    member,
    viewer,
    await keyCaller('key that may all', owner),
    await keyCaller('key that reads', owner, { permissions: ['tools:read'] }),
    await keyCaller('test key', owner, { permissions, environment: 'test' }),
    await keyCaller('key without quota', spent, undefined, true),
    await keyCaller('key in a hurry', hurried, undefined, true),
    { ...full, name: 'owner of all keys allowed' },
    // The operator is known to nobody but a command line.
    operation.transports.some((transport) => transport !== 'cli')
      ? await administrator(slugs.main)
      : { ...owner, name: 'operator', principal: installationOperator, operator: installationOperator },
    // Over one transport alone, so only where nobody else is let through.
    ...(operation.callers?.includes('service') === true ? [service] : []),
    { ...owner, name: 'nobody', credential: misspelt(foreign[0]?.key ?? ''), principal: null, operator: null },
  ];

  return {
    callers,
    foreignMark,
    ownerIds,
    owner: owner.principal,
    lookUp({ kind, index }) {
      const pool = pools[kind]();
      return pool[index % pool.length] ?? '';
    },
    liveKey: (id) => live.find((made) => made.id === id.toLowerCase())?.key,
    async replace(id) {
      const at = live.findIndex((made) => made.id === id.toLowerCase());
      live[at] = await createKey(owner.principal, { name: 'replacement' });
    },
    async finishRotation(id) {
      await app.sql(
        'UPDATE api_keys SET is_active = false WHERE family_id::text = lower($1) AND superseded_at IS NOT NULL',
        [id],
      );
    },
    async revive() {
      await app.sql(
        `WITH families AS (UPDATE api_key_families SET revoked_at = NULL, revoked_by = NULL
                           WHERE owner_id = ANY ($1) AND revoked_at IS NOT NULL AND id <> $2 RETURNING id)
         UPDATE api_keys SET is_active = true, revoked_at = NULL WHERE family_id IN (SELECT id FROM families)`,
        [ownerIds, revoked.id],
      );
      const tags = ownerIds.map((id) => `owner:${id}`);
      await app.sql(`SELECT pg_notify('iora_invalidate', $1)`, [JSON.stringify({ id: randomUUID(), tags })]);
      for (const { principal, credential } of callers) {
        if (principal?.kind !== 'api_key') continue;
        const isKnown = () =>
          app.bearer(credential).then(
            () => true,
            () => false,
          );
        await until(isKnown, 'a revived key works');
      }
    },
    async state() {
      const [state] = await app.sql(
        `SELECT count(*)::int AS keys, count(revoked_at)::int AS revoked, max(updated_at)::text AS "changedAt"
         FROM api_key_families WHERE owner_id = ANY ($1)`,
        [ownerIds],
      );
      return state;
    },
  };
}

/** A key with a wrong checksum, so that it can be nobody's. */
function misspelt(key: string): string {
  return `${key.slice(0, -1)}${key.endsWith('A') ? 'B' : 'A'}`;
}
