import { z } from 'zod';
import { defineOperation, pageInput, pageOf, readCursor } from '../../kernel/operation.ts';
import { encodeCursor } from '../../lib/cursor.ts';
import type { KeysParts } from './index.ts';
import { keySchema, toKeyRecord, visibleFamilies } from './key-record.ts';

/** The owner's keys, newest first, revoked and expired ones included. */
export const listKeys = (parts: KeysParts) =>
  defineOperation({
    name: 'keys.list',
    route: { method: 'GET', path: '/user/api-keys' },
    summary: 'List API keys, newest first',
    permission: 'keys:read',
    audience: 'tenant',
    transports: ['http', 'cli'],
    cost: 0,
    input: z.strictObject(pageInput),
    output: pageOf(keySchema),
    answer: 'page',
    volatile: ['lastUsedAt', 'usesSinceRotation'],
    idempotent: true,
    readOnly: true,
    example: { limit: 10 },
    async run(context, { limit, cursor }) {
      const after = readCursor(cursor, ['uuid']);
      // Ids are UUIDv7, so their order is the order of creation.
      const rows = await parts.database.read(context.principal, (tx) => {
        const query = visibleFamilies(tx, context)
          .orderBy('family.id', 'desc')
          .limit(limit + 1);
        return (after === undefined ? query : query.where('family.id', '<', after[0])).execute();
      });
      const page = rows.slice(0, limit);
      const last = rows.length > limit ? page.at(-1) : undefined;
      const nowMs = parts.wallClockMs();
      return {
        items: page.map((row) => toKeyRecord(row, nowMs)),
        nextCursor: last === undefined ? null : encodeCursor([last.id]),
      };
    },
  });
