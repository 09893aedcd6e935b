import { sql } from 'kysely';
import { z } from 'zod';
import { defineOperation } from '../../kernel/operation.ts';
import { monthStart, nextMonthStart } from '../../lib/month.ts';
import type { UsageParts } from './index.ts';

const DAY_MS = 86_400_000;

const counts = { calls: z.int(), cost: z.int(), errors: z.int() };

const output = z.object({
  period: z.object({ start: z.iso.datetime(), end: z.iso.datetime() }),
  today: z.object(counts),
  month: z.object(counts),
  tier: z.string(),
  limits: z.object({
    requestsPerMinute: z.int().nullable(),
    requestsPerMonth: z.int().nullable(),
    maxApiKeys: z.int(),
  }),
  remaining: z.object({ minute: z.int().nullable(), month: z.int().nullable() }),
  byEndpoint: z.array(z.object({ operation: z.string(), ...counts })),
  byDay: z.array(z.object({ date: z.iso.date(), ...counts })),
});

/**
 * What the caller's owner used today and this month (UTC), and what is left to it; for a plain member of an organization, what the
 * member used. Test calls are not counted.
 */
export const getUsage = (parts: UsageParts) => {
  const shared = shareRunning();
  return defineOperation({
    name: 'usage.get',
    route: { method: 'GET', path: '/user/usage' },
    summary: 'Calls and cost of today and this month, limits and what remains',
    permission: 'usage:read',
    audience: 'tenant',
    transports: ['http', 'mcp', 'cli'],
    cost: 0,
    input: z.strictObject({}),
    output,
    answer: 'json',
    volatile: ['remaining'],
    idempotent: true,
    readOnly: true,
    example: {},
    async run(context) {
      const now = parts.wallClockMs();
      const { principal } = context;
      // Of an organization a plain member sees what is its own.
      const person = principal.role === 'member' ? principal.userId : null;
      const rows = await shared(`${principal.ownerId} ${person ?? ''}`, async () => {
        // Accepted calls that still wait in memory belong in the answer.
        await parts.writer.flush();
        return parts.database.read(principal, (tx) => {
          const ofOwner = tx
            .selectFrom('usage_logs')
            .where('owner_id', '=', principal.ownerId)
            .where('created_at', '>=', new Date(monthStart(now)))
            .where('billable', '=', true);
          return (person === null ? ofOwner : ofOwner.where('user_id', '=', person))
            .select([
              'operation',
              sql<string>`to_char(created_at at time zone 'UTC', 'YYYY-MM-DD')`.as('date'),
              sql<string>`count(*)`.as('calls'),
              sql<string>`coalesce(sum(cost), 0)`.as('cost'),
              sql<string>`count(*) filter (where status_code >= 400)`.as('errors'),
            ])
            .groupBy(['operation', 'date'])
            .orderBy('date')
            .execute();
        });
      });
      const facts = rows.map((row) => ({
        operation: row.operation,
        date: row.date,
        calls: Number(row.calls),
        cost: Number(row.cost),
        errors: Number(row.errors),
      }));
      const today = new Date(now - (now % DAY_MS)).toISOString().slice(0, 10);
      const states = await parts.admission.states(principal);
      const remaining = (name: string) => states.find((state) => state.policy === name)?.remaining ?? null;
      return {
        period: {
          start: new Date(monthStart(now)).toISOString(),
          end: new Date(nextMonthStart(now)).toISOString(),
        },
        today: total(facts.filter((fact) => fact.date === today)),
        month: total(facts),
        tier: principal.tier,
        limits: principal.limits,
        remaining: { minute: remaining('minute'), month: remaining('month') },
        byEndpoint: [...Map.groupBy(facts, (fact) => fact.operation)].map(([operation, group]) => ({
          operation,
          ...total(group),
        })),
        byDay: [...Map.groupBy(facts, (fact) => fact.date)].map(([date, group]) => ({ date, ...total(group) })),
      };
    },
  });
};

/**
 * Reads of one owner share a query where they can: it may have a whole month of rows to read. One that is under way may
 * have begun before the caller's last call was answered, so whoever finds it running shares the one after it.
 */
function shareRunning() {
  const running = new Map<string, Promise<unknown>>();
  const following = new Map<string, Promise<unknown>>();

  function start<T>(owner: string, read: () => Promise<T>): Promise<T> {
    const started = read().finally(() => {
      if (running.get(owner) === started) running.delete(owner);
    });
    running.set(owner, started);
    return started;
  }

  return <T>(owner: string, read: () => Promise<T>): Promise<T> => {
    const current = running.get(owner);
    if (current === undefined) return start(owner, read);
    const found = following.get(owner);
    if (found !== undefined) return found as Promise<T>;
    const next = current
      .catch(() => undefined)
      .then(() => {
        following.delete(owner);
        return start(owner, read);
      });
    following.set(owner, next);
    return next;
  };
}

interface Fact {
  readonly calls: number;
  readonly cost: number;
  readonly errors: number;
}

function total(facts: readonly Fact[]): Fact {
  return facts.reduce(
    (sum, fact) => ({ calls: sum.calls + fact.calls, cost: sum.cost + fact.cost, errors: sum.errors + fact.errors }),
    { calls: 0, cost: 0, errors: 0 },
  );
}
