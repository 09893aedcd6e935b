import { z } from 'zod';
import { AppError } from '../../kernel/errors.ts';
import { defineOperation } from '../../kernel/operation.ts';
import type { KeysParts } from './index.ts';

const limitSchema = z.object({
  policy: z.enum(['minute', 'month', 'key-minute', 'key-month', 'service']),
  limit: z.int(),
  remaining: z.int(),
  windowSeconds: z.number(),
  resetSeconds: z.int(),
});

/** What the calling key itself may do and has left. */
export const currentKey = (parts: KeysParts) =>
  defineOperation({
    name: 'keys.current',
    route: { method: 'GET', path: '/user/api-keys/current' },
    summary: "Show the calling key's own permissions, limits and expiry",
    permission: null,
    callers: ['api_key'],
    audience: 'tenant',
    transports: ['http'],
    cost: 0,
    input: z.strictObject({}),
    output: z.object({
      id: z.uuid(),
      name: z.string(),
      keyPrefix: z.string(),
      environment: z.enum(['live', 'test']),
      permissions: z.array(z.string()),
      tier: z.string(),
      limits: z.array(limitSchema),
      allowedCidrs: z.array(z.string()),
      expiresAt: z.iso.datetime().nullable(),
    }),
    answer: 'json',
    idempotent: true,
    readOnly: true,
    example: {},
    async run(context) {
      const { key, permissions, tier } = context.principal;
      if (key === null) throw new AppError('forbidden', 'This is for API keys.');
      return {
        id: key.id,
        name: key.name,
        keyPrefix: key.prefix,
        environment: key.environment,
        permissions: [...permissions],
        tier,
        limits: [...(await parts.admission.states(context.principal))],
        allowedCidrs: [...key.allowedCidrs],
        expiresAt: key.expiresAt?.toISOString() ?? null,
      };
    },
  });
