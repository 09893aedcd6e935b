import { sql } from 'kysely';
import type { Principal } from '../../kernel/context.ts';
import type { LimitState } from '../../kernel/invoke.ts';
import type { Feature } from '../../kernel/operation.ts';
import type { Database } from '../../platform/postgres.ts';
import { getUsage } from './get-usage.ts';
import type { UsageWriter } from './usage-writer.ts';

export { createUsageWriter, EVENTS_HELD_MAX, type UsageWriter } from './usage-writer.ts';

export interface UsageParts {
  readonly database: Database;
  readonly writer: UsageWriter;
  readonly admission: { states(principal: Principal): Promise<readonly LimitState[]> };
  readonly wallClockMs: () => number;
}

export function createUsage(parts: UsageParts): Feature {
  return { name: 'usage', operations: [getUsage(parts)] };
}

/**
 * Cost charged since a moment to an owner or to one of its key families, calls still in memory included. Test calls
 * cost nothing here. Reads as the owner itself, so it can ask about nobody else.
 */
export async function chargedSince(
  parts: { readonly database: Database; readonly writer: UsageWriter },
  principal: Principal,
  subject: { readonly ownerId: string; readonly keyId: string | null },
  sinceMs: number,
): Promise<number> {
  if (parts.writer.pending() > 0) await parts.writer.flush();
  const row = await parts.database.read(principal, (tx) => {
    const query = tx
      .selectFrom('usage_logs')
      .where('owner_id', '=', subject.ownerId)
      .where('created_at', '>=', new Date(sinceMs))
      .where('billable', '=', true)
      .select(sql<string>`coalesce(sum(cost), 0)`.as('cost'));
    return (subject.keyId === null ? query : query.where('api_key_id', '=', subject.keyId)).executeTakeFirstOrThrow();
  });
  return Number(row.cost);
}
