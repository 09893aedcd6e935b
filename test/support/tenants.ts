// Rows for tests, in every table that exists, whose every identifying value says whose it is.
import { createHash } from 'node:crypto';
import type pg from 'pg';

export interface TestTenant {
  /** In every id, name and text of this tenant, and of no other. */
  readonly marker: string;
  readonly userId: string;
  readonly orgId: string;
  readonly familyId: string;
  readonly secretId: string;
  readonly keyHash: Buffer;
}

/** Describes a tenant by a letter of a to f, which is repeated eight times as its marker. */
export function testTenant(letter: string): TestTenant {
  const marker = letter.repeat(8);
  return {
    marker,
    userId: `user_${marker}`,
    orgId: `org_${marker}`,
    familyId: `${marker}-0000-4000-8000-000000000001`,
    secretId: `${marker}-0000-4000-8000-000000000002`,
    keyHash: createHash('sha256').update(marker).digest(),
  };
}

/**
 * Fills every table that exists at the schema's present version and has no row of the tenant. Needs a superuser: it writes
 * past row-level security.
 */
export async function fillTables(client: pg.ClientBase, tenant: TestTenant = testTenant('a')): Promise<void> {
  for (const [table, row] of Object.entries(rowsOf(tenant))) {
    const found = await client.query<{ found: boolean }>('SELECT to_regclass($1) IS NOT NULL AS found', [
      `public.${table}`,
    ]);
    if (found.rows[0]?.found !== true) continue;
    const names = Object.keys(row);
    const present = await client.query(`SELECT FROM ${table} t WHERE t::text LIKE $1`, [`%${tenant.marker}%`]);
    if (present.rows.length > 0) continue;
    const slots = names.map((_, index) => `$${index + 1}`);
    await client.query(`INSERT INTO ${table} (${names.join(', ')}) VALUES (${slots.join(', ')})`, Object.values(row));
  }
}

function rowsOf({
  marker,
  userId,
  orgId,
  familyId,
  secretId,
  keyHash,
}: TestTenant): Record<string, Record<string, unknown>> {
  const now = new Date();
  return {
    users: {
      id: userId,
      issuer: 'test',
      subject: marker,
      email_ciphertext: Buffer.from(`email of ${marker}`),
      email_blind_index: createHash('sha256').update(`email ${marker}`).digest(),
      data_key_version: 1,
      stripe_customer_id: `cus_${marker}`,
    },
    organizations: { id: orgId, name: marker, slug: marker, stripe_subscription_id: `sub_${marker}` },
    identity_deletions: { issuer: 'test', kind: 'session', external_id: marker, deleted_at: now },
    webhook_messages: { provider: 'clerk', message_id: marker, event_type: 'user.created' },
    organization_members: { org_id: orgId, user_id: userId, role: 'owner' },
    api_key_families: { id: familyId, user_id: userId, org_id: orgId, name: marker, environment: 'live' },
    api_keys: {
      id: secretId,
      family_id: familyId,
      user_id: userId,
      org_id: orgId,
      key_hash: keyHash,
      pepper_version: 1,
      key_prefix: `iora_pk_live_${marker}`,
    },
    api_key_expiry_notices: { owner_id: orgId, family_id: familyId, expires_at: now, days: 7 },
    usage_logs: {
      id: `${marker}-0000-4000-8000-000000000003`,
      user_id: userId,
      org_id: orgId,
      owner_id: orgId,
      api_key_id: familyId,
      key_secret_id: secretId,
      operation: 'get_price',
      endpoint: `/tools/${marker}`,
      method: 'POST',
      status_code: 200,
      cost: 1,
      billable: true,
      request_id: marker,
      created_at: now,
    },
    billing_events: {
      user_id: userId,
      org_id: orgId,
      event_type: marker,
      stripe_event_id: `evt_${marker}`,
      raw_event: JSON.stringify({ marker }),
      created_at: now,
    },
    audit_logs: {
      id: `${marker}-0000-4000-8000-000000000004`,
      user_id: userId,
      org_id: orgId,
      owner_id: orgId,
      actor_type: 'session',
      actor_id: userId,
      action: 'keys.create',
      resource_id: familyId,
      outcome: 'succeeded',
      request_id: marker,
      created_at: now,
    },
    outbox_events: {
      id: `${marker}-0000-4000-8000-000000000005`,
      topic: marker,
      owner_id: orgId,
      payload: JSON.stringify({ marker }),
    },
    service_nonces: { key_id: marker, nonce: `nonce-of-${marker}`, expires_at: now },
    instances: { id: `${marker}-0000-4000-8000-000000000006`, hostname: marker, version: '0.1.0' },
  };
}
