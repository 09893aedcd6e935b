import { z } from 'zod';
import { personOf, writing } from '../../kernel/context.ts';
import { AppError } from '../../kernel/errors.ts';
import { defineOperation } from '../../kernel/operation.ts';
import { generateKey, keyPrefix } from '../../lib/key-format.ts';
import { hashKey } from '../../lib/key-hash.ts';
import { uuidV7 } from '../../lib/uuid-v7.ts';
import type { Transaction } from '../../platform/postgres.ts';
import { assertCallerLives } from './caller-lives.ts';
import { effectFields, effectVolatile, withEffect } from './effect.ts';
import { familyOrNotFound } from './get-key.ts';
import type { KeysParts } from './index.ts';
import { assertNotStronger, keyIdSchema, keySchema, toKeyRecord } from './key-record.ts';
import { lockSecrets } from './lock-secrets.ts';
import { assertFewAtOnce, assertRoomForSecret } from './rotation-limits.ts';
import { earliest, secretSchema } from './secret-record.ts';

const SECOND_MS = 1_000;
const DAY_SECONDS = 86_400;
/** A day reaches every place that is deployed daily; after a month nobody remembers that a rotation is under way. */
const OVERLAP_DEFAULT_SECONDS = DAY_SECONDS;
const OVERLAP_MAX_SECONDS = 30 * DAY_SECONDS;
const shown = keySchema.shape;
const secret = secretSchema.shape;

/** Makes a new secret of a key; those before it go on working for the overlap, never beyond their own expiry. */
export const rotateKey = (parts: KeysParts) =>
  defineOperation({
    name: 'keys.rotate',
    route: { method: 'POST', path: '/user/api-keys/{id}/rotate' },
    summary: 'Make a new secret of an API key, while the old one goes on working for a while',
    permission: 'keys:write',
    audience: 'tenant',
    transports: ['http', 'cli'],
    cost: 0,
    input: z.strictObject({
      id: keyIdSchema,
      overlapSeconds: z
        .int()
        .min(0)
        .max(OVERLAP_MAX_SECONDS)
        .default(OVERLAP_DEFAULT_SECONDS)
        .describe('How long older secrets go on working, never beyond their own expiry; 0: they stop at once'),
      finishWhenIdle: z
        .boolean()
        .default(false)
        .describe(
          'End the overlap early, once an older secret has not been used for some minutes; uses of the last minute on other instances may not be known yet',
        ),
    }),
    output: z.object({
      id: shown.id,
      name: shown.name,
      key: z.string().describe('The new secret. It is shown this once and kept nowhere'),
      keyPrefix: shown.keyPrefix,
      environment: shown.environment,
      permissions: shown.permissions,
      createdAt: z.iso.datetime().describe('When the new secret was made'),
      expiresAt: shown.expiresAt,
      previous: z
        .array(
          z.object({
            keyPrefix: secret.keyPrefix,
            expiresAt: z.iso.datetime().describe('From then on it is refused'),
            lastUsedAt: secret.lastUsedAt,
            usesSinceRotation: z.int().describe('Uses since it was rotated out first'),
          }),
        )
        .describe('Older secrets that worked until now. Uses on other instances may be a minute late'),
      ...effectFields,
    }),
    answer: 'json',
    status: 201,
    volatile: ['key', 'keyPrefix', 'createdAt', 'previous', ...effectVolatile],
    idempotent: false,
    readOnly: false,
    audit: { action: 'api_key_rotated', resourceType: 'api_key' },
    example: { id: '0198f2a0-7c11-7b3a-9d4e-2f6a1c0b5e77', overlapSeconds: 3_600 },
    async run(context, { id: asked, overlapSeconds, finishWhenIdle }) {
      const tx = writing(context);
      const { ownerId, orgId } = context.principal;
      const family = await familyOrNotFound(tx, context, asked, 'lock');
      // Not before: rotations of one key come one after the other, and so do their moments.
      const nowMs = parts.wallClockMs();
      const now = new Date(nowMs);
      const record = toKeyRecord(family, nowMs);
      const { id, name, environment, permissions } = record;
      context.audit.resourceId = id;
      if (record.status !== 'active')
        throw new AppError('not_found', `The API key is ${record.status}; make a new one.`);
      // The answer holds a secret that works, so the caller must be able to make such a key.
      assertNotStronger(context, { ...record, expiresAt: family.expires_at });

      await assertRoomForSecret(tx, { ownerId, id });
      await lockSecrets(tx, { ownerId, familyIds: [id] });
      // Not before: with its own secret locked, a report that it was found in public is waited for.
      await assertCallerLives(tx, context, now);
      await parts.use.record(tx, id);
      const older = await workingSecrets(tx, { ownerId, id, now });
      const until = new Date(nowMs + overlapSeconds * SECOND_MS);
      const previous = older.map((row) => {
        // A leaked secret is worth nothing to its owner, so it gets no time.
        const stops = overlapSeconds === 0 || row.leaked_at !== null;
        return { row, stops, expiresAt: stops ? now : (earliest([row.expires_at, family.expires_at, until]) ?? until) };
      });
      assertFewAtOnce(previous.filter(({ stops }) => !stops).map(({ expiresAt, row }) => row.expires_at ?? expiresAt));
      for (const { row, stops, expiresAt } of previous) {
        await tx
          .updateTable('api_keys')
          .set({
            expires_at: expiresAt,
            is_active: !stops,
            superseded_at: row.superseded_at ?? now,
            superseded_usage_count: row.superseded_usage_count ?? row.usage_count,
            ends_when_idle: !stops && (row.ends_when_idle || finishWhenIdle),
          })
          .where('id', '=', row.id)
          .where('owner_id', '=', ownerId)
          .execute();
      }

      const key = generateKey(environment);
      const [pepper] = parts.peppers;
      const { created_at: createdAt } = await tx
        .insertInto('api_keys')
        .values({
          id: uuidV7(nowMs),
          family_id: id,
          user_id: personOf(context.principal),
          org_id: orgId,
          key_hash: hashKey(key, pepper.secret),
          pepper_version: pepper.version,
          key_prefix: keyPrefix(key),
        })
        .returning('created_at')
        .executeTakeFirstOrThrow();
      context.audit.changes = {
        name,
        keyPrefix: keyPrefix(key),
        overlapSeconds,
        finishWhenIdle,
        previous: previous.map(({ row, expiresAt }) => ({ keyPrefix: row.key_prefix, expiresAt })),
      };
      const answer = {
        id,
        name,
        key,
        keyPrefix: keyPrefix(key),
        environment,
        permissions,
        createdAt: createdAt.toISOString(),
        expiresAt: record.expiresAt,
        previous: previous.map(({ row, expiresAt }) => ({
          keyPrefix: row.key_prefix,
          expiresAt: expiresAt.toISOString(),
          lastUsedAt: row.last_used_at?.toISOString() ?? null,
          usesSinceRotation: Math.max(
            0,
            Number(row.usage_count) - Number(row.superseded_usage_count ?? row.usage_count),
          ),
        })),
      };
      const change = { ownerIds: [ownerId], tags: [`family:${id}` as const] };
      return withEffect(parts.invalidations, context, change, answer);
    },
  });

/** The secrets of the key that work now, newest first. The family is locked, so no other rotation is at them. */
function workingSecrets(tx: Transaction, { ownerId, id, now }: { ownerId: string; id: string; now: Date }) {
  return tx
    .selectFrom('api_keys')
    .where('owner_id', '=', ownerId)
    .where('family_id', '=', id)
    .where('is_active', '=', true)
    .where((builder) => builder.or([builder('expires_at', 'is', null), builder('expires_at', '>', now)]))
    .select([
      'id',
      'key_prefix',
      'expires_at',
      'last_used_at',
      'usage_count',
      'superseded_at',
      'superseded_usage_count',
      'ends_when_idle',
      'leaked_at',
    ])
    .orderBy('superseded_at', 'desc')
    .orderBy('id', 'desc')
    .execute();
}
