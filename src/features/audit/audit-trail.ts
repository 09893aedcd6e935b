import type { AuditEntry, AuditTrail } from '../../kernel/invoke.ts';
import { createMinuteCounter } from '../../lib/minute-counter.ts';
import { uuidV7 } from '../../lib/uuid-v7.ts';
import type { Log } from '../../platform/log.ts';
import type { Database, Transaction } from '../../platform/postgres.ts';

/** Rows for refused and failed writes that one owner may cause a minute: enough to see an attack, too few to fill a disk. */
export const REFUSALS_PER_MINUTE_MAX = 30;
/** What the table takes; what a caller says of itself must never stop its write. */
const USER_AGENT_LENGTH_MAX = 512;
/** Interface of a link-local IPv6 address (`fe80::1%eth0`), which PostgreSQL does not keep. */
const ZONE = /%.*$/;
/** Owners counted at once; beyond it the counting starts over, which only makes the bound laxer for a minute. */
const OWNERS_COUNTED_MAX = 10_000;

export interface AuditTrailParts {
  readonly database: Database;
  readonly log: Log;
  readonly wallClockMs: () => number;
}

/** The append-only audit trail. Rows carry who, what, outcome and request id; never a secret. */
export function createAuditTrail(parts: AuditTrailParts): AuditTrail {
  const mayRecordRefusal = createMinuteCounter({
    perMinuteMax: REFUSALS_PER_MINUTE_MAX,
    subjectsMax: OWNERS_COUNTED_MAX,
  });

  async function append(tx: Transaction, entry: AuditEntry): Promise<void> {
    const { call } = entry;
    const { principal } = call;
    const now = parts.wallClockMs();
    await tx
      .insertInto('audit_logs')
      .values({
        id: uuidV7(now),
        user_id: principal.userId,
        org_id: principal.orgId,
        owner_id: principal.ownerId,
        actor_type: principal.kind,
        actor_id: principal.key?.id ?? principal.service ?? principal.userId ?? principal.kind,
        action: entry.action,
        resource_type: entry.resourceType,
        resource_id: entry.resourceId ?? null,
        outcome: entry.outcome,
        error_code: entry.errorCode,
        request_id: call.requestId,
        ip_address: call.ipAddress?.replace(ZONE, '') ?? null,
        user_agent: call.userAgent?.slice(0, USER_AGENT_LENGTH_MAX) ?? null,
        changes: entry.changes === undefined ? null : JSON.stringify(entry.changes),
      })
      .execute();
  }

  return {
    append,
    async appendAlone(entry) {
      const { principal, requestId } = entry.call;
      // With the database away there is no row to write, and waiting for it again would double the caller's wait.
      if (entry.errorCode === 'unavailable' || !mayRecordRefusal(principal.ownerId, parts.wallClockMs())) {
        parts.log.warn(
          { action: entry.action, outcome: entry.outcome, code: entry.errorCode, requestId },
          'audit row not kept',
        );
        return;
      }
      try {
        await parts.database.write(principal, (tx) => append(tx, entry));
      } catch (err) {
        parts.log.error({ err, action: entry.action, requestId }, 'audit row failed');
      }
    },
  };
}
