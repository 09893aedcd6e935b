import { sql } from 'kysely';
import { z } from 'zod';
import { type Context, personOf, writing } from '../../kernel/context.ts';
import { AppError } from '../../kernel/errors.ts';
import { defineOperation } from '../../kernel/operation.ts';
import { generateKey, keyPrefix } from '../../lib/key-format.ts';
import { hashKey } from '../../lib/key-hash.ts';
import { uuidV7 } from '../../lib/uuid-v7.ts';
import type { Transaction } from '../../platform/postgres.ts';
import { assertCallerLives } from './caller-lives.ts';
import type { KeysParts } from './index.ts';
import {
  allowedCidrsSchema,
  assertNotStronger,
  keySchema,
  nameSchema,
  ownLimitSchema,
  permissionsSchema,
} from './key-record.ts';

const input = z.strictObject({
  name: nameSchema.describe('What the key is for'),
  permissions: permissionsSchema
    .default(['tools:read'])
    .describe('What the key may do; never more than its creator may'),
  environment: z
    .enum(['live', 'test'])
    .default('live')
    .describe('Test keys see the simulated market and are never billed'),
  expiresAt: z.iso.datetime({ offset: true }).optional().describe('From then on the key is refused'),
  requestsPerMinute: ownLimitSchema.optional().describe("A limit of the key's own, below the owner's"),
  requestsPerMonth: ownLimitSchema.optional().describe("A quota of the key's own, below the owner's"),
  allowedCidrs: allowedCidrsSchema
    .default([])
    .describe('Networks or addresses the key may be used from; none named means any'),
});

const shown = keySchema.shape;
const output = z.object({
  id: shown.id,
  name: shown.name,
  key: z.string().describe('The key itself. It is shown this once and kept nowhere'),
  keyPrefix: shown.keyPrefix,
  environment: shown.environment,
  permissions: shown.permissions,
  createdAt: shown.createdAt,
  expiresAt: shown.expiresAt,
});

/** Makes an API key. The answer is the only place where the key itself ever stands. */
export const createKey = (parts: KeysParts) =>
  defineOperation({
    name: 'keys.create',
    route: { method: 'POST', path: '/user/api-keys' },
    summary: 'Create an API key',
    permission: 'keys:write',
    audience: 'tenant',
    transports: ['http', 'cli'],
    cost: 0,
    input,
    output,
    answer: 'json',
    status: 201,
    volatile: ['id', 'key', 'keyPrefix', 'createdAt'],
    idempotent: false,
    readOnly: false,
    audit: { action: 'api_key_created', resourceType: 'api_key' },
    example: { name: 'backend', permissions: ['tools:read'] },
    async run(context, request) {
      const tx = writing(context);
      const nowMs = parts.wallClockMs();
      const expiresAt = futureMoment(request.expiresAt, nowMs);
      assertNotStronger(context, {
        ...request,
        expiresAt,
        requestsPerMinute: request.requestsPerMinute ?? null,
        requestsPerMonth: request.requestsPerMonth ?? null,
      });
      await lockKeysOf(tx, context.principal.ownerId);
      await assertCallerLives(tx, context, new Date(parts.wallClockMs()));
      await assertBelowMaximum(tx, context);

      const { orgId } = context.principal;
      const userId = personOf(context.principal);
      const [pepper] = parts.peppers;
      const key = generateKey(request.environment);
      const id = uuidV7(nowMs);
      const { created_at: createdAt } = await tx
        .insertInto('api_key_families')
        .values({
          id,
          user_id: userId,
          created_by_key_id: context.principal.key?.id ?? null,
          org_id: orgId,
          name: request.name,
          environment: request.environment,
          permissions: request.permissions,
          requests_per_minute: request.requestsPerMinute ?? null,
          requests_per_month: request.requestsPerMonth ?? null,
          expires_at: expiresAt,
          allowed_cidrs: request.allowedCidrs,
        })
        .returning('created_at')
        .executeTakeFirstOrThrow();
      await tx
        .insertInto('api_keys')
        .values({
          id: uuidV7(nowMs),
          family_id: id,
          user_id: userId,
          org_id: orgId,
          key_hash: hashKey(key, pepper.secret),
          pepper_version: pepper.version,
          key_prefix: keyPrefix(key),
        })
        .execute();
      const { permissions, environment, name, allowedCidrs } = request;
      context.audit.resourceId = id;
      context.audit.changes = {
        name,
        environment,
        permissions,
        keyPrefix: keyPrefix(key),
        expiresAt: expiresAt?.toISOString() ?? null,
        allowedCidrs,
      };
      return {
        id,
        name,
        key,
        keyPrefix: keyPrefix(key),
        environment,
        permissions,
        createdAt: createdAt.toISOString(),
        expiresAt: expiresAt?.toISOString() ?? null,
      };
    },
  });

/** Times are answered in ISO 8601 with four digits of year; an offset can lift a moment past them. */
const MOMENT_MAX_MS = Date.UTC(9999, 11, 31, 23, 59, 59, 999);

/** The moment as a Date. Throws `invalid_input` unless it lies ahead, and within the years that can be written. */
export function futureMoment(text: string | null | undefined, nowMs: number): Date | null {
  if (text === undefined || text === null) return null;
  const moment = new Date(text);
  const ms = moment.getTime();
  if (ms > nowMs && ms <= MOMENT_MAX_MS) return moment;
  const message = ms > nowMs ? 'must lie before the year 10000' : 'must lie in the future';
  throw new AppError('invalid_input', `expiresAt ${message}.`, {
    details: { issues: [{ path: 'expiresAt', message }] },
  });
}

/**
 * Until the transaction ends, nobody else makes a key of this owner or revokes all of them: two creations cannot both take
 * the last place, and none slips past a revocation of everything.
 */
export async function lockKeysOf(tx: Transaction, ownerId: string): Promise<void> {
  await sql`select pg_advisory_xact_lock(hashtextextended(${`api_keys:${ownerId}`}, 0))`.execute(tx);
}

/** Refuses when the owner has as many live keys as its tier allows. */
async function assertBelowMaximum(tx: Transaction, context: Context): Promise<void> {
  const { ownerId, limits } = context.principal;
  const { live } = await tx
    .selectFrom('api_key_families')
    .where('owner_id', '=', ownerId)
    .where('revoked_at', 'is', null)
    .where((builder) => builder.or([builder('expires_at', 'is', null), builder('expires_at', '>', sql<Date>`now()`)]))
    .select(sql<string>`count(*)`.as('live'))
    .executeTakeFirstOrThrow();
  if (Number(live) < limits.maxApiKeys) return;
  throw new AppError('key_limit_reached', `All ${limits.maxApiKeys} API keys are in use: revoke one first.`, {
    details: { limit: limits.maxApiKeys },
  });
}
