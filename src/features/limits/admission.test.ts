import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { KeyIdentity, Principal } from '../../kernel/context.ts';
import type { AdmissionDecision } from '../../kernel/invoke.ts';
import { monthStart, nextMonthStart } from '../../lib/month.ts';
import { type AdmissionParts, createAdmission, type QuotaSubject, RATE_WINDOW_MS } from './admission.ts';

const DAY_MS = 86_400_000;

interface Limits {
  readonly minute: number | null;
  readonly month: number | null;
}

function principal(
  ownerId: string,
  limits: Limits,
  key: (Limits & { id: string; environment?: 'test' }) | null = null,
): Principal {
  return {
    kind: key === null ? 'session' : 'api_key',
    ownerId,
    userId: ownerId,
    orgId: null,
    role: null,
    permissions: new Set(),
    tier: 'free',
    limits: { requestsPerMinute: limits.minute, requestsPerMonth: limits.month, maxApiKeys: 1 },
    key:
      key === null
        ? null
        : ({
            id: key.id,
            environment: key.environment ?? 'live',
            requestsPerMinute: key.minute,
            requestsPerMonth: key.month,
          } as KeyIdentity),
    service: null,
    scopes: null,
  };
}

/** Admission on clocks that a test moves, with usage tables that say what the test wants. */
function admissionOnClock(change: Partial<AdmissionParts> = {}) {
  const clock = { monotonicMs: 1_000, wallMs: Date.UTC(2026, 0, 10) };
  const asked: (QuotaSubject & { sinceMs: number })[] = [];
  const admission = createAdmission({
    monotonicMs: () => clock.monotonicMs,
    wallClockMs: () => clock.wallMs,
    unmeteredPerWindowMax: 600,
    servicePerWindowMax: 600,
    usedSince: async (_principal, subject, sinceMs) => {
      asked.push({ ...subject, sinceMs });
      return 0;
    },
    ...change,
  });
  return {
    admission,
    clock,
    asked,
    admit: async (who: Principal, cost = 1): Promise<AdmissionDecision> => admission.admit(who, cost),
    advance(ms: number) {
      clock.monotonicMs += ms;
      clock.wallMs += ms;
    },
  };
}

const remaining = (decision: AdmissionDecision) =>
  Object.fromEntries(decision.limits.map((state) => [state.policy, state.remaining]));
const codeOf = (decision: AdmissionDecision) => (decision.admitted ? 'ok' : decision.error.code);

/** The oracle: one record for every admission, forgotten by nobody. */
class ExactLog {
  readonly #admissions: { atMs: number; cost: number }[] = [];

  held(nowMs: number): number {
    return this.#admissions
      .filter(({ atMs }) => atMs > nowMs - RATE_WINDOW_MS)
      .reduce((sum, { cost }) => sum + cost, 0);
  }

  add(atMs: number, cost: number): void {
    this.#admissions.push({ atMs, cost });
  }
}

// Below 120 a window is promised to be exact, so the decisions must be equal, not only close.
const limit = fc.option(fc.integer({ min: 1, max: 12 }));
const quota = fc.option(fc.integer({ min: 1, max: 60 }));
const ownLimits = fc.record({ minute: limit, month: quota });
const tenant = fc.record({
  limits: ownLimits,
  keys: fc.array(fc.record({ limits: ownLimits, isTest: fc.boolean() }), { maxLength: 2 }),
  usedBefore: fc.nat({ max: 10 }),
});
const arrival = fc.record({
  afterMs: fc.oneof(
    fc.nat({ max: 500 }),
    fc.nat({ max: 20_000 }),
    fc.constantFrom(0, RATE_WINDOW_MS, RATE_WINDOW_MS - 1),
  ),
  daysLater: fc.oneof(
    { weight: 30, arbitrary: fc.constant(0) },
    { weight: 1, arbitrary: fc.integer({ min: 1, max: 25 }) },
  ),
  owner: fc.nat(),
  key: fc.nat({ max: 2 }),
  cost: fc.integer({ min: 1, max: 3 }),
  fails: fc.boolean(),
});

test('whoever calls whenever: exactly what an exact log of all admissions allows, all limits together or none', async () => {
  const outcomes: Record<string, number> = {};
  await fc.assert(
    fc.asyncProperty(
      fc.array(tenant, { minLength: 1, maxLength: 3 }),
      fc.array(arrival, { minLength: 1, maxLength: 120, size: 'max' }),
      async (tenants, arrivals) => {
        const rates = new Map<string, ExactLog>();
        const used = new Map<string, number>();
        const rate = (id: string): ExactLog => {
          const log = rates.get(id) ?? new ExactLog();
          rates.set(id, log);
          return log;
        };
        const monthKey = (id: string, wallMs: number) => `${id} ${monthStart(wallMs)}`;
        const firstMonth = Date.UTC(2026, 0, 1);
        // The tables: what was used before this process began, and nothing of later months.
        const { admit, admission, clock, advance } = admissionOnClock({
          usedSince: async (_who, subject, sinceMs) => {
            if (sinceMs !== firstMonth || subject.keyId !== null) return 0;
            return tenants[Number(subject.ownerId)]?.usedBefore ?? 0;
          },
        });
        for (const [index, owner] of tenants.entries()) used.set(monthKey(String(index), firstMonth), owner.usedBefore);

        for (const call of arrivals) {
          advance(call.afterMs);
          clock.wallMs += call.daysLater * DAY_MS;
          const ownerId = String(call.owner % tenants.length);
          const owner = tenants[Number(ownerId)];
          assert.ok(owner);
          const key = owner.keys[call.key];
          const keyId = `${ownerId}/${call.key}`;
          const who = principal(
            ownerId,
            owner.limits,
            key === undefined ? null : { id: keyId, ...key.limits, ...(key.isTest ? { environment: 'test' } : {}) },
          );

          const counted = key?.isTest !== true;
          const bounds = [
            { id: ownerId, ...owner.limits },
            ...(key === undefined ? [] : [{ id: keyId, ...key.limits }]),
          ];
          const usedOf = (id: string) => used.get(monthKey(id, clock.wallMs)) ?? 0;
          const overMonth = counted && bounds.some(({ id, month }) => month !== null && usedOf(id) + call.cost > month);
          const overMinute = bounds.some(
            ({ id, minute }) => minute !== null && rate(id).held(clock.monotonicMs) + call.cost > minute,
          );
          const expected = overMonth ? 'quota_exceeded' : overMinute ? 'rate_limited' : 'ok';

          const decision = await admit(who, call.cost);
          assert.equal(codeOf(decision), expected);
          outcomes[expected] = (outcomes[expected] ?? 0) + 1;
          if (decision.admitted) {
            for (const { id, minute } of bounds) {
              if (minute !== null) rate(id).add(clock.monotonicMs, call.cost);
              if (counted) used.set(monthKey(id, clock.wallMs), usedOf(id) + call.cost);
            }
          }
          for (const state of decision.limits) {
            const bound = state.policy.startsWith('key-') ? bounds[1] : bounds[0];
            assert.ok(bound);
            const held = state.policy.endsWith('month') ? usedOf(bound.id) : rate(bound.id).held(clock.monotonicMs);
            assert.equal(state.remaining, Math.max(0, state.limit - held), `${state.policy} after ${expected}`);
          }
          if (decision.admitted && call.fails) {
            admission.refund(who, call.cost, clock.wallMs);
            if (counted) for (const { id } of bounds) used.set(monthKey(id, clock.wallMs), usedOf(id) - call.cost);
          }
        }
      },
    ),
    { numRuns: 400 },
  );
  for (const kind of ['ok', 'quota_exceeded', 'rate_limited'])
    assert.ok((outcomes[kind] ?? 0) > 500, JSON.stringify(outcomes));
});

test('a first burst gets exactly the limit, then a moment for every call that leaves the window', async () => {
  const { admit, advance } = admissionOnClock();
  const who = principal('o', { minute: 1_000, month: null });
  let admitted = 0;
  for (let call = 0; call < 3_000; call += 1) admitted += Number((await admit(who)).admitted);
  assert.equal(admitted, 1_000);
  const refused = await admit(who);
  assert.ok(!refused.admitted);
  assert.deepEqual(refused.error.details, { policy: 'minute', limit: 1_000, windowSeconds: 60, retryAfterSeconds: 60 });
  advance(59_999);
  assert.equal(codeOf(await admit(who)), 'rate_limited');
  advance(1);
  assert.equal(codeOf(await admit(who)), 'ok');
});

test('a refusal takes nothing from any limit, the refusing one included', async () => {
  const { admit } = admissionOnClock();
  const owner = { minute: 10, month: 100 };
  const tight = principal('o', owner, { id: 'tight', minute: 2, month: 50 });
  const wide = principal('o', owner, { id: 'wide', minute: 100, month: 3 });
  await admit(tight, 2);
  for (let call = 0; call < 20; call += 1) assert.equal(codeOf(await admit(tight)), 'rate_limited');
  assert.deepEqual(remaining(await admit(tight)), { month: 98, 'key-month': 48, minute: 8, 'key-minute': 0 });
  await admit(wide, 3);
  for (let call = 0; call < 20; call += 1) assert.equal(codeOf(await admit(wide)), 'quota_exceeded');
  assert.deepEqual(remaining(await admit(wide)), { month: 95, 'key-month': 0, minute: 5, 'key-minute': 97 });
  assert.deepEqual(remaining(await admit(principal('o', owner), 6)), { month: 95, minute: 5 });
});

test('a used-up month is told before a full minute, with its end and no time to retry after', async () => {
  const { admit, clock } = admissionOnClock();
  const who = principal('o', { minute: 1, month: 1 });
  await admit(who);
  const refused = await admit(who);
  assert.ok(!refused.admitted);
  assert.equal(refused.error.code, 'quota_exceeded');
  assert.deepEqual(refused.error.details, {
    policy: 'month',
    limit: 1,
    used: 1,
    resetsAt: new Date(nextMonthStart(clock.wallMs)).toISOString(),
  });
});

test('a new month begins with what the tables say of it', async () => {
  const { admit, clock, asked } = admissionOnClock();
  const who = principal('o', { minute: null, month: 2 }, { id: 'k', minute: null, month: 1 });
  clock.wallMs = Date.UTC(2026, 1, 1) - 1;
  assert.equal(codeOf(await admit(who)), 'ok');
  assert.equal(codeOf(await admit(who)), 'quota_exceeded');
  clock.wallMs += 1;
  assert.equal(codeOf(await admit(who)), 'ok');
  assert.equal(codeOf(await admit(who)), 'quota_exceeded');
  const [january, february] = [Date.UTC(2026, 0, 1), Date.UTC(2026, 1, 1)];
  assert.deepEqual(asked, [
    { ownerId: 'o', keyId: null, sinceMs: january },
    { ownerId: 'o', keyId: 'k', sinceMs: january },
    { ownerId: 'o', keyId: null, sinceMs: february },
    { ownerId: 'o', keyId: 'k', sinceMs: february },
  ]);
});

test('calls admitted in one month and failed in the next give nothing back there', async () => {
  const { admit, admission, clock } = admissionOnClock();
  const who = principal('o', { minute: null, month: 5 });
  clock.wallMs = Date.UTC(2026, 1, 1) - 1;
  await admit(who, 5);
  const late = clock.wallMs;
  clock.wallMs += 1;
  await admit(who, 2);
  admission.refund(who, 5, late);
  assert.deepEqual(remaining(await admit(who, 1)), { month: 2 });
});

test('first calls at once ask the tables once, and all of them are counted', async () => {
  const answer = Promise.withResolvers<number>();
  let asked = 0;
  const { admission } = admissionOnClock({
    usedSince: () => {
      asked += 1;
      return answer.promise;
    },
  });
  const who = principal('o', { minute: null, month: 30 });
  const calls = Array.from({ length: 50 }, async () => admission.admit(who, 1));
  const states = admission.states(who);
  answer.resolve(10);
  const decisions = await Promise.all(calls);
  assert.equal(decisions.filter((decision) => decision.admitted).length, 20);
  assert.equal(asked, 1);
  assert.equal((await states)[0]?.limit, 30);
});

test('when the tables cannot be asked nothing is decided, and the next call asks again', async () => {
  let broken = true;
  const { admit } = admissionOnClock({
    usedSince: async () => {
      if (broken) throw new Error('away');
      return 4;
    },
  });
  const who = principal('o', { minute: 5, month: 5 });
  await assert.rejects(admit(who), /away/);
  broken = false;
  assert.deepEqual(remaining(await admit(who)), { month: 0, minute: 4 });
});

test('another tier or override holds from the next call on, for what was used before too', async () => {
  const { admit } = admissionOnClock();
  const free = principal('o', { minute: 3, month: 10 });
  for (let call = 0; call < 3; call += 1) await admit(free);
  assert.equal(codeOf(await admit(free)), 'rate_limited');
  assert.deepEqual(remaining(await admit(principal('o', { minute: 5, month: 4 }))), { month: 0, minute: 1 });
  assert.equal(codeOf(await admit(principal('o', { minute: 5, month: 4 }))), 'quota_exceeded');
  assert.equal(codeOf(await admit(free)), 'rate_limited');
  assert.equal(codeOf(await admit(principal('o', { minute: null, month: null }))), 'ok');
});

test('test keys share the minute and stay out of the month', async () => {
  const { admit, asked } = admissionOnClock();
  const who = principal('o', { minute: 3, month: 1 }, { id: 't', minute: null, month: 1, environment: 'test' });
  for (let call = 0; call < 3; call += 1) assert.equal(codeOf(await admit(who)), 'ok');
  assert.equal(codeOf(await admit(who)), 'rate_limited');
  assert.deepEqual(asked, []);
  assert.equal(codeOf(await admit(principal('o', { minute: null, month: 1 }))), 'ok');
});

test('what costs more than the whole limit is refused without a promise', async () => {
  const { admit } = admissionOnClock();
  const refused = await admit(principal('o', { minute: 2, month: null }), 3);
  assert.ok(!refused.admitted);
  assert.equal(refused.error.code, 'rate_limited');
  assert.equal(refused.error.details['retryAfterSeconds'], undefined);
});

test('whoever holds a key cannot use up the free calls by which its owner would revoke it', () => {
  const { admission } = admissionOnClock({ unmeteredPerWindowMax: 2 });
  const limits = { minute: 1, month: 1 };
  const [found, other] = ['found', 'other'].map((id) => principal('org', limits, { id, minute: null, month: null }));
  assert.ok(found !== undefined && other !== undefined);
  for (let call = 0; call < 5; call += 1) admission.refuseUnmetered(found);
  assert.equal(admission.refuseUnmetered(other)?.code, 'rate_limited', 'the keys of an owner share their bound');
  const people = ['user_one', 'user_two'].map((userId) => ({ ...principal('org', limits), userId }));
  for (const person of people) assert.equal(admission.refuseUnmetered(person), null);
});

test('calls that cost nothing are bounded per owner, in a window of their own', () => {
  const { admission, clock } = admissionOnClock({ unmeteredPerWindowMax: 2 });
  const [one, other] = [principal('org_one', { minute: 1, month: 1 }), principal('org_other', { minute: 1, month: 1 })];
  assert.equal(admission.refuseUnmetered(one), null);
  assert.equal(admission.refuseUnmetered(one), null);
  const refusal = admission.refuseUnmetered(one);
  assert.equal(refusal?.code, 'rate_limited');
  assert.deepEqual(refusal?.details, { policy: 'unmetered', limit: 2, windowSeconds: 60, retryAfterSeconds: 60 });
  assert.equal(admission.refuseUnmetered(other), null);
  clock.monotonicMs += 60_000;
  assert.equal(admission.refuseUnmetered(one), null);
});

const byService = (service: string, tenant: Principal): Principal => ({ ...tenant, kind: 'service', service });

test('a service has one ceiling for all its tenants, and passes theirs', async () => {
  const { admit, admission, advance } = admissionOnClock({ servicePerWindowMax: 3 });
  const [one, other] = [principal('org_one', { minute: 1, month: 1 }), principal('org_other', { minute: 1, month: 1 })];
  assert.deepEqual(remaining(await admit(byService('s', one))), { service: 2 });
  assert.equal(codeOf(await admit(byService('s', one))), 'ok', 'beyond minute and month of the tenant');
  assert.equal(admission.refuseUnmetered(byService('s', other)), null);
  const refused = await admit(byService('s', other));
  assert.ok(!refused.admitted);
  assert.deepEqual(refused.error.details, { policy: 'service', limit: 3, windowSeconds: 60, retryAfterSeconds: 60 });
  assert.equal(admission.refuseUnmetered(byService('s', one))?.code, 'rate_limited', 'what is free counts as well');
  assert.equal(codeOf(await admit(byService('t', one))), 'ok', 'another service has a ceiling of its own');
  assert.deepEqual(await admission.states(byService('s', one)), [
    { policy: 'service', limit: 3, remaining: 0, windowSeconds: 60, resetSeconds: 60 },
  ]);
  advance(RATE_WINDOW_MS);
  assert.equal(codeOf(await admit(byService('s', other))), 'ok');
});

test('what a service spends moves the month of its tenant, and only that; what fails moves it back', async () => {
  const { admit, admission, clock } = admissionOnClock({ servicePerWindowMax: 100 });
  const tenant = principal('org', { minute: 5, month: 4 });
  assert.deepEqual(remaining(await admit(tenant)), { month: 3, minute: 4 });
  await admit(byService('s', tenant), 2);
  assert.deepEqual(remaining(await admit(tenant)), { month: 0, minute: 3 });
  admission.refund(byService('s', tenant), 2, clock.wallMs);
  assert.deepEqual(remaining(await admit(tenant)), { month: 1, minute: 2 });
  for (let call = 0; call < 5; call += 1) assert.equal(codeOf(await admit(byService('s', tenant))), 'ok');
  assert.equal(codeOf(await admit(tenant)), 'quota_exceeded');
});

test('a call of a service that is under way while the month is read is counted once', async () => {
  const read = Promise.withResolvers<number>();
  const { admit } = admissionOnClock({ servicePerWindowMax: 100, usedSince: () => read.promise });
  const tenant = principal('org', { minute: null, month: 10 });
  const calls = [admit(tenant), admit(byService('s', tenant)), admit(byService('s', tenant))];
  read.resolve(3);
  assert.ok((await Promise.all(calls)).every(({ admitted }) => admitted));
  assert.deepEqual(remaining(await admit(tenant)), { month: 3 });
});

test('a service that calls for itself has no month, and nobody is asked for one', async () => {
  const { admit, asked } = admissionOnClock({ servicePerWindowMax: 2 });
  const itself = byService('s', principal('service_s', { minute: null, month: null }));
  assert.deepEqual(remaining(await admit(itself)), { service: 1 });
  assert.deepEqual(asked, []);
});
