// An application that takes Clerk's webhooks, what Clerk sends, and what the tables hold afterwards.
import { generateKeyPairSync, randomBytes, randomUUID } from 'node:crypto';
import { Webhook } from 'standardwebhooks';
import { clerkIssuerOf } from '../../src/lib/clerk-publishable-key.ts';
import { open } from '../../src/lib/envelope.ts';
import type { Secrets } from '../../src/main/secrets.ts';
import { openMetrics } from '../../src/platform/metrics.ts';
import { createHttpServer } from '../../src/transports/http/server.ts';
import { openMcp } from '../../src/transports/http/test-server.ts';
import { type ApplicationOptions, startApplication, type TestApplication } from './application.ts';
import type { TestDatabase } from './postgres.ts';

const PUBLISHABLE_KEY = `pk_test_${Buffer.from('clerk.example.com$').toString('base64')}`;
export const ISSUER = clerkIssuerOf(PUBLISHABLE_KEY) ?? '';
export const WEBHOOK_SECRET = newWebhookSecret();

export function newWebhookSecret(): string {
  return `whsec_${randomBytes(24).toString('base64')}`;
}

const settings = {
  CLERK_PUBLISHABLE_KEY: PUBLISHABLE_KEY,
  CLERK_JWT_KEY: generateKeyPairSync('rsa', { modulusLength: 2_048 })
    .publicKey.export({ type: 'spki', format: 'pem' })
    .toString(),
  CLERK_WEBHOOK_SECRET: WEBHOOK_SECRET,
  PUBLIC_URL: 'https://iora.example.com',
  KEY_CACHE_TTL: '60',
};

/** A message as Clerk words it, as far as it matters here. */
export interface ClerkMessage {
  readonly type: string;
  readonly data: Record<string, unknown>;
  readonly timestamp?: number;
}

export interface Delivery {
  /** The message's id; a new one where absent. */
  readonly id?: string;
  readonly sentAt?: Date;
  readonly secret?: string;
}

export interface Answer {
  readonly status: number;
  readonly headers: Record<string, unknown>;
  readonly body: Record<string, unknown>;
}

export interface ClerkApplication extends TestApplication {
  /** Sends a message signed as Clerk signs it. */
  deliver(message: ClerkMessage, delivery?: Delivery): Promise<Answer>;
  /** Sends whatever it is given. */
  post(body: string | Buffer, headers: Record<string, string>): Promise<Answer>;
}

/** Starts an application that takes Clerk's webhooks, behind the HTTP server without a port. */
export async function startClerkApplication(
  database: TestDatabase,
  options: ApplicationOptions = {},
): Promise<ClerkApplication> {
  const application = await startApplication(database, { ...options, settings: { ...settings, ...options.settings } });
  const { operations, endpoints, invoke, authenticate, rightsHeard } = application.app;
  const server = createHttpServer({
    operations,
    endpoints,
    invoke,
    authenticate,
    rightsHeard,
    mcp: { ...openMcp, handle: async (_request, response) => void response.end('{}') },
    log: application.log,
    metrics: openMetrics(),
    version: '0.0.0',
    publicUrl: undefined,
    trustedProxies: [],
  });

  async function post(body: string | Buffer, headers: Record<string, string>): Promise<Answer> {
    const answer = await server.inject({ method: 'POST', url: '/webhooks/clerk', headers, payload: body });
    return { status: answer.statusCode, headers: answer.headers, body: answer.json() };
  }

  return {
    ...application,
    post,
    deliver(message, delivery) {
      const body = JSON.stringify({ object: 'event', instance_id: 'ins_1', ...message });
      return post(body, signatureOf(body, delivery));
    },
    async close(deadlineMs) {
      await server.close();
      return application.close(deadlineMs);
    },
  };
}

/** The headers of a message that is signed as it should be. */
export function signatureOf(
  body: string,
  { id = `msg_${randomUUID()}`, sentAt = new Date(), secret = WEBHOOK_SECRET }: Delivery = {},
): Record<string, string> {
  return {
    'content-type': 'application/json',
    'svix-id': id,
    'svix-timestamp': String(Math.floor(sentAt.getTime() / 1_000)),
    'svix-signature': new Webhook(secret).sign(id, sentAt, body),
  };
}

/** `user.created` or `user.updated`. */
export function userMessage(
  kind: 'created' | 'updated',
  subject: string,
  at: number,
  change: { first?: string | null; email?: string | null; banned?: boolean; [field: string]: unknown } = {},
): ClerkMessage {
  const { first = null, email = null, banned = false, ...others } = change;
  const address = { id: 'idn_1', email_address: email, verification: { status: 'verified' } };
  return {
    type: `user.${kind}`,
    timestamp: at,
    data: {
      object: 'user',
      id: subject,
      first_name: first,
      last_name: first === null ? null : 'Example',
      primary_email_address_id: email === null ? null : 'idn_1',
      email_addresses: email === null ? [] : [address],
      banned,
      locked: false,
      deprovisioned: false,
      public_metadata: {},
      created_at: at,
      updated_at: at,
      ...others,
    },
  };
}

export function organizationMessage(
  kind: 'created' | 'updated',
  id: string,
  at: number,
  change: { name?: string; slug?: string; created_by?: string } = {},
): ClerkMessage {
  return { type: `organization.${kind}`, timestamp: at, data: organization(id, at, change) };
}

function organization(id: string, at: number, change: Record<string, unknown>): Record<string, unknown> {
  return { object: 'organization', id, name: `name of ${id}`, slug: null, created_at: at, updated_at: at, ...change };
}

export interface MembershipChange {
  readonly role?: string;
  /** When the membership began; the message's moment where absent. */
  readonly since?: number;
  /** The organization as the message words it. */
  readonly organization?: ClerkMessage['data'];
}

export function membershipMessage(
  kind: 'created' | 'updated' | 'deleted',
  id: string,
  [org, subject]: readonly [string, string],
  at: number,
  change: MembershipChange = {},
): ClerkMessage {
  const { role = 'org:member', since = at } = change;
  return {
    type: `organizationMembership.${kind}`,
    timestamp: at,
    data: {
      object: 'organization_membership',
      id,
      role,
      organization: change.organization ?? organization(org, 0, {}),
      public_user_data: { user_id: subject, identifier: 'somebody@example.com' },
      created_at: since,
      updated_at: at,
    },
  };
}

export function deletedMessage(kind: 'user' | 'organization', id: string, at: number): ClerkMessage {
  return { type: `${kind}.deleted`, timestamp: at, data: { object: kind, id, deleted: true } };
}

export function sessionMessage(
  kind: 'revoked' | 'ended' | 'removed',
  id: string,
  subject: string,
  at: number,
): ClerkMessage {
  return { type: `session.${kind}`, timestamp: at, data: { object: 'session', id, user_id: subject, status: kind } };
}

/**
 * What the tables say of people, organizations, memberships and what is over: personal columns opened, and without ids of ours
 * and times of ours, so that two histories can be compared.
 */
export async function identityTables(application: TestApplication, secrets: Secrets): Promise<string[]> {
  const opened = (row: Record<string, unknown>, column: string) => {
    const sealed = row[`${column}_ciphertext`];
    if (!(sealed instanceof Buffer)) return null;
    return open(sealed, secrets.dataKeys, { table: 'users', column, row: String(row['id']) });
  };
  const users = await application.sql('SELECT * FROM users');
  const organizations = await application.sql(
    `SELECT name, slug, issuer, external_id, tier, is_active, suspended_at, provider_updated_at, deleted_at, created_by_subject
     FROM organizations`,
  );
  const members = await application.sql(
    `SELECT o.external_id AS org, u.subject, m.role, m.joined_at, m.external_id, m.provider_updated_at
     FROM organization_members m JOIN users u ON u.id = m.user_id JOIN organizations o ON o.id = m.org_id`,
  );
  const deletions = await application.sql('SELECT * FROM identity_deletions');
  const people = users.map((row) => ({
    issuer: row.issuer,
    subject: row.subject,
    email: opened(row, 'email'),
    index: row.email_blind_index,
    first: opened(row, 'first_name'),
    last: opened(row, 'last_name'),
    dataKey: row.data_key_version,
    active: row.is_active,
    tier: row.tier,
    permissions: row.platform_permissions,
    suspended: row.suspended_at,
    newest: row.provider_updated_at,
    deleted: row.deleted_at,
  }));
  const lines = (kind: string, rows: unknown[]) => rows.map((row) => `${kind} ${JSON.stringify(row)}`);
  return [
    ...lines('user', people),
    ...lines('organization', organizations),
    ...lines('member', members),
    ...lines('deletion', deletions),
  ].sort();
}
