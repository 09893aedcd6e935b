import type { Principal } from '../../kernel/context.ts';
import { AppError, unavailable } from '../../kernel/errors.ts';
import type { Admission, AdmissionDecision, LimitState } from '../../kernel/invoke.ts';
import { monthStart, nextMonthStart } from '../../lib/month.ts';
import { SlidingWindow } from '../../lib/sliding-window.ts';

/**
 * Rate limits and monthly quota of one process. The window promise holds for the process's lifetime; the quota is
 * seeded from the usage tables, so it survives restarts up to one flush of usage.
 */

export const RATE_WINDOW_MS = 60_000;
const RATE_WINDOW_SECONDS = RATE_WINDOW_MS / 1_000;
const SECOND_MS = 1_000;

/** Subjects remembered at once (about 1 KB each when busy). Only idle ones are forgotten, so no promise is lost. */
const SUBJECTS_MAX = 100_000;

/** Whose usage is summed: the owner's, or one key family's. */
export interface QuotaSubject {
  readonly ownerId: string;
  readonly keyId: string | null;
}

export interface AdmissionParts {
  readonly monotonicMs: () => number;
  readonly wallClockMs: () => number;
  /** Calls that cost nothing which the keys of one owner together, and each of its people, may make within the window. */
  readonly unmeteredPerWindowMax: number;
  /** Calls of any kind that one service may make within the window. */
  readonly servicePerWindowMax: number;
  /** Cost charged to the subject since that moment, with everything this process has accepted already counted. */
  readonly usedSince: (principal: Principal, subject: QuotaSubject, sinceMs: number) => Promise<number>;
  readonly observe?: (decision: 'admitted' | 'refused', policy: string) => void;
}

interface Quota {
  readonly monthStartMs: number;
  readonly monthEndMs: number;
  used: number;
}

interface RatePolicy {
  readonly name: 'minute' | 'key-minute' | 'service';
  readonly limit: number;
  readonly window: SlidingWindow;
}

/** One limit that a call has to pass, resolved for its principal. */
type Policy = RatePolicy | { readonly name: 'month' | 'key-month'; readonly limit: number; readonly quota: Quota };

export interface InProcessAdmission extends Admission {
  /** The limits of a principal as they stand, nothing charged. */
  states(principal: Principal): Promise<readonly LimitState[]>;
}

/** Admission for a single process. All limits are checked first and charged together, or none is. */
export function createAdmission(parts: AdmissionParts): InProcessAdmission {
  const rates = new Map<string, SlidingWindow>();
  const quotas = new Map<string, Quota>();
  const seeding = new Map<string, Promise<void>>();

  function rateOf(subject: string, now: number): SlidingWindow {
    let window = rates.get(subject);
    if (window === undefined) {
      if (rates.size >= SUBJECTS_MAX) forgetIdle(now);
      window = new SlidingWindow(RATE_WINDOW_MS);
      rates.set(subject, window);
    }
    return window;
  }

  function forgetIdle(now: number): void {
    for (const [subject, window] of rates) if (window.isIdle(now)) rates.delete(subject);
    if (rates.size >= SUBJECTS_MAX) throw unavailable('Too many callers are active at once.');
  }

  /** The quota when it is known for the month of that moment, else undefined. */
  function knownQuota(id: string, wallMs: number): Quota | undefined {
    const quota = quotas.get(id);
    return quota !== undefined && wallMs >= quota.monthStartMs && wallMs < quota.monthEndMs ? quota : undefined;
  }

  function seed(principal: Principal, subject: QuotaSubject, id: string, wallMs: number): Promise<void> {
    const running = seeding.get(id);
    if (running !== undefined) return running;
    const monthStartMs = monthStart(wallMs);
    const started = parts
      .usedSince(principal, subject, monthStartMs)
      .then((used) => {
        // Quotas are seeded again when forgotten, so dropping the oldest costs a query and never a count.
        if (quotas.size >= SUBJECTS_MAX)
          for (const oldest of quotas.keys()) {
            quotas.delete(oldest);
            break;
          }
        quotas.set(id, { monthStartMs, monthEndMs: nextMonthStart(monthStartMs), used });
      })
      .finally(() => seeding.delete(id));
    seeding.set(id, started);
    return started;
  }

  /** The policies of a principal, or a promise to wait for before asking again. */
  function policiesOf(principal: Principal, now: number, wallMs: number): Policy[] | Promise<void> {
    const { key, limits, ownerId } = principal;
    if (principal.kind === 'service') return [ceilingOf(principal, now)];
    const policies: Policy[] = [];
    // Test keys are limited like any other but have no part in the quota.
    if (key?.environment !== 'test') {
      if (limits.requestsPerMonth !== null) {
        const quota = knownQuota(ownerId, wallMs);
        if (quota === undefined) return seed(principal, { ownerId, keyId: null }, ownerId, wallMs);
        policies.push({ name: 'month', limit: limits.requestsPerMonth, quota });
      }
      if (key !== null && key.requestsPerMonth !== null) {
        const quota = knownQuota(key.id, wallMs);
        if (quota === undefined) return seed(principal, { ownerId, keyId: key.id }, key.id, wallMs);
        policies.push({ name: 'key-month', limit: key.requestsPerMonth, quota });
      }
    }
    if (limits.requestsPerMinute !== null) {
      policies.push({ name: 'minute', limit: limits.requestsPerMinute, window: rateOf(ownerId, now) });
    }
    if (key !== null && key.requestsPerMinute !== null) {
      policies.push({ name: 'key-minute', limit: key.requestsPerMinute, window: rateOf(key.id, now) });
    }
    return policies;
  }

  /** The one limit of a service, whichever tenant it calls for. */
  function ceilingOf({ service }: Principal, now: number): RatePolicy {
    return { name: 'service', limit: parts.servicePerWindowMax, window: rateOf(`service ${service}`, now) };
  }

  /**
   * The quota of the tenant a service calls for, which is charged and not asked, or a promise to wait for before asking again:
   * a call that is under way while the quota is read from the tables would otherwise be counted nowhere.
   */
  function quotaBehind(principal: Principal, wallMs: number): Quota | undefined | Promise<void> {
    const { kind, ownerId, limits } = principal;
    if (kind !== 'service' || limits.requestsPerMonth === null) return undefined;
    return knownQuota(ownerId, wallMs) ?? seed(principal, { ownerId, keyId: null }, ownerId, wallMs);
  }

  function decide(policies: readonly Policy[], cost: number, now: number, wallMs: number): AdmissionDecision {
    let refusal: { policy: Policy; retryAfterMs: number } | undefined;
    for (const policy of policies) {
      if ('quota' in policy) {
        if (policy.quota.used + cost > policy.limit) {
          // A used-up month outlasts any window, so it is the refusal worth telling.
          refusal = { policy, retryAfterMs: policy.quota.monthEndMs - wallMs };
          break;
        }
        continue;
      }
      const check = policy.window.check(now, policy.limit, cost);
      if (!check.admitted && (refusal === undefined || check.retryAfterMs > refusal.retryAfterMs)) {
        refusal = { policy, retryAfterMs: check.retryAfterMs };
      }
    }
    if (refusal === undefined) {
      for (const policy of policies) {
        if ('quota' in policy) policy.quota.used += cost;
        else policy.window.admit(now, policy.limit, cost);
      }
    }
    const limits = policies.map((policy) => stateOf(policy, now, wallMs));
    parts.observe?.(refusal === undefined ? 'admitted' : 'refused', refusal?.policy.name ?? 'none');
    if (refusal === undefined) return { admitted: true, limits };
    return { admitted: false, limits, error: refusalError(refusal.policy, refusal.retryAfterMs) };
  }

  function admit(principal: Principal, cost: number): AdmissionDecision | Promise<AdmissionDecision> {
    const now = parts.monotonicMs();
    const wallMs = parts.wallClockMs();
    const policies = policiesOf(principal, now, wallMs);
    if (!Array.isArray(policies)) return policies.then(() => admit(principal, cost));
    const behind = quotaBehind(principal, wallMs);
    if (behind instanceof Promise) return behind.then(() => admit(principal, cost));
    const decision = decide(policies, cost, now, wallMs);
    if (behind !== undefined && decision.admitted) behind.used += cost;
    return decision;
  }

  /** Its free calls take their place below the same ceiling as the others. */
  function refuseUnmeteredService({ name, limit, window }: RatePolicy, now: number): AppError | null {
    const verdict = window.admit(now, limit, 1);
    if (verdict.admitted) return null;
    parts.observe?.('refused', name);
    return rateError(name, limit, subjectOf(name), verdict.retryAfterMs);
  }

  return {
    admit,
    refuseUnmetered(principal) {
      const now = parts.monotonicMs();
      if (principal.kind === 'service') return refuseUnmeteredService(ceilingOf(principal, now), now);
      const limit = parts.unmeteredPerWindowMax;
      // People apart from keys: whoever found a key must not be able to keep its owner from revoking it.
      const who = principal.key === null ? (principal.userId ?? principal.kind) : 'keys';
      const verdict = rateOf(`unmetered ${principal.ownerId} ${who}`, now).admit(now, limit, 1);
      if (verdict.admitted) return null;
      parts.observe?.('refused', 'unmetered');
      const subject = principal.key === null ? 'this person' : 'the keys of this account';
      return rateError('unmetered', limit, subject, verdict.retryAfterMs);
    },
    refund(principal, cost, admittedAtMs) {
      if (principal.key?.environment === 'test') return;
      for (const id of [principal.ownerId, principal.key?.id]) {
        const quota = id === undefined ? undefined : knownQuota(id, admittedAtMs);
        if (quota !== undefined) quota.used = Math.max(0, quota.used - cost);
      }
    },
    async states(principal) {
      for (;;) {
        const now = parts.monotonicMs();
        const wallMs = parts.wallClockMs();
        const policies = policiesOf(principal, now, wallMs);
        if (Array.isArray(policies)) return policies.map((policy) => stateOf(policy, now, wallMs));
        await policies;
      }
    },
  };
}

function stateOf(policy: Policy, now: number, wallMs: number): LimitState {
  if ('quota' in policy) {
    const { monthStartMs, monthEndMs, used } = policy.quota;
    return {
      policy: policy.name,
      limit: policy.limit,
      remaining: Math.max(0, policy.limit - used),
      windowSeconds: (monthEndMs - monthStartMs) / SECOND_MS,
      resetSeconds: Math.ceil((monthEndMs - wallMs) / SECOND_MS),
    };
  }
  const { remaining, resetMs } = policy.window.check(now, policy.limit, 0);
  return {
    policy: policy.name,
    limit: policy.limit,
    remaining,
    windowSeconds: RATE_WINDOW_SECONDS,
    resetSeconds: Math.ceil(resetMs / SECOND_MS),
  };
}

function refusalError(policy: Policy, retryAfterMs: number): AppError {
  const subject = subjectOf(policy.name);
  if ('quota' in policy) {
    const resetsAt = new Date(policy.quota.monthEndMs).toISOString();
    return new AppError(
      'quota_exceeded',
      `The ${policy.limit} calls a month of ${subject} are used up until ${resetsAt}.`,
      {
        details: { policy: policy.name, limit: policy.limit, used: policy.quota.used, resetsAt },
      },
    );
  }
  if (!Number.isFinite(retryAfterMs)) {
    return new AppError(
      'rate_limited',
      `This costs more than the ${policy.limit} calls a window that ${subject} is allowed.`,
      {
        details: { policy: policy.name, limit: policy.limit, windowSeconds: RATE_WINDOW_SECONDS },
      },
    );
  }
  return rateError(policy.name, policy.limit, subject, retryAfterMs);
}

/** Whom a limit holds for, in words. */
function subjectOf(policy: Policy['name']): string {
  if (policy === 'service') return 'this service';
  return policy.startsWith('key-') ? 'this key' : 'this account';
}

function rateError(policy: string, limit: number, subject: string, retryAfterMs: number): AppError {
  const retryAfterSeconds = Math.max(1, Math.ceil(retryAfterMs / SECOND_MS));
  const calls = limit === 1 ? '1 call is' : `${limit} calls are`;
  return new AppError(
    'rate_limited',
    `${calls} allowed in any ${RATE_WINDOW_SECONDS} s for ${subject}. Try again in ${retryAfterSeconds} s.`,
    { details: { policy, limit, windowSeconds: RATE_WINDOW_SECONDS, retryAfterSeconds } },
  );
}
