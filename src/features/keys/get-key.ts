import { z } from 'zod';
import type { Context } from '../../kernel/context.ts';
import { AppError } from '../../kernel/errors.ts';
import { defineOperation } from '../../kernel/operation.ts';
import type { Transaction } from '../../platform/postgres.ts';
import type { KeysParts } from './index.ts';
import { type FamilyRow, keyIdSchema, keySchema, toKeyRecord, visibleFamilies } from './key-record.ts';

/** One key of the owner. */
export const getKey = (parts: KeysParts) =>
  defineOperation({
    name: 'keys.get',
    route: { method: 'GET', path: '/user/api-keys/{id}' },
    summary: 'Show one API key',
    permission: 'keys:read',
    audience: 'tenant',
    transports: ['http', 'cli'],
    cost: 0,
    input: z.strictObject({ id: keyIdSchema }),
    output: keySchema,
    answer: 'json',
    volatile: ['lastUsedAt', 'usesSinceRotation'],
    idempotent: true,
    readOnly: true,
    example: { id: '0198f2a0-7c11-7b3a-9d4e-2f6a1c0b5e77' },
    async run(context, { id }) {
      // Before it is known whose key it is: what is written is true either way. An id may be spelt in capitals.
      await parts.use
        .flush(id.toLowerCase())
        .catch((err: unknown) => parts.log.warn({ err }, 'last use of a key could not be written before it is shown'));
      const row = await parts.database.read(context.principal, (tx) => familyOrNotFound(tx, context, id));
      return toKeyRecord(row, parts.wallClockMs());
    },
  });

/**
 * The family the caller may see under that id; with `lock`, nobody else changes it before this transaction ends. Throws
 * `not_found`, the same for another owner's as for none.
 */
export async function familyOrNotFound(
  tx: Transaction,
  context: Context,
  id: string,
  lock?: 'lock',
): Promise<FamilyRow> {
  const query = visibleFamilies(tx, context).where('family.id', '=', id);
  const row = await (lock === undefined ? query : query.forUpdate('family')).executeTakeFirst();
  if (row === undefined) throw new AppError('not_found', 'There is no such API key.');
  return row;
}
