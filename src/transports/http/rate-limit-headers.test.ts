import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { LimitState } from '../../kernel/invoke.ts';
import { rateLimitHeaders } from './rate-limit-headers.ts';

const NOW_MS = 1_700_000_000_000;

function headersOf(limits: readonly LimitState[]): Record<string, string> {
  const flat = rateLimitHeaders(limits, NOW_MS);
  const pairs = flat.flatMap((name, index) => (index % 2 === 0 ? [[name, flat[index + 1] ?? '']] : []));
  return Object.fromEntries(pairs);
}

const minute: LimitState = { policy: 'minute', limit: 60, remaining: 59, windowSeconds: 60, resetSeconds: 59.2 };
const month: LimitState = {
  policy: 'month',
  limit: 10_000,
  remaining: 12,
  windowSeconds: 2_678_400,
  resetSeconds: 100,
};

test('every limit is listed, and the older headers tell the one with the smallest share left', () => {
  assert.deepEqual(headersOf([minute, month]), {
    'RateLimit-Policy': '"minute";q=60;w=60, "month";q=10000;w=2678400',
    RateLimit: '"minute";r=59;t=60, "month";r=12;t=100',
    'X-RateLimit-Limit': '10000',
    'X-RateLimit-Remaining': '12',
    'X-RateLimit-Reset': '1700000100',
  });
});

test('an unmetered answer has none of the headers', () => {
  assert.deepEqual(rateLimitHeaders([], NOW_MS), []);
});

test('a limit of nothing is the tightest of all', () => {
  const nothing: LimitState = { ...minute, policy: 'key-minute', limit: 0, remaining: 0 };
  assert.equal(headersOf([month, nothing])['X-RateLimit-Limit'], '0');
});

const states = fc.record({
  policy: fc.constantFrom('minute', 'month', 'key-minute', 'key-month'),
  limit: fc.integer({ min: 0, max: 1_000_000 }),
  remaining: fc.double({ min: -5, max: 1_000_000, noNaN: true }),
  windowSeconds: fc.integer({ min: 1, max: 2_678_400 }),
  resetSeconds: fc.double({ min: 0, max: 2_678_400, noNaN: true }),
}) satisfies fc.Arbitrary<LimitState>;

test('whatever the figures: whole numbers, never below nothing, never promised too early', () => {
  const policy = /^"[a-z-]+";q=\d+;w=\d+$/;
  const item = /^"[a-z-]+";r=\d+;t=\d+$/;
  fc.assert(
    fc.property(fc.array(states, { minLength: 1, maxLength: 4 }), (limits) => {
      const headers = headersOf(limits);
      const policies = (headers['RateLimit-Policy'] ?? '').split(', ');
      const items = (headers['RateLimit'] ?? '').split(', ');
      assert.equal(policies.length, limits.length);
      assert.equal(items.length, limits.length);
      assert.ok(policies.every((text) => policy.test(text)));
      assert.ok(items.every((text) => item.test(text)));
      for (const [index, { remaining, resetSeconds }] of limits.entries()) {
        const [, left, wait] = /r=(\d+);t=(\d+)/.exec(items[index] ?? '') ?? [];
        assert.ok(Number(left) <= Math.max(0, remaining));
        assert.ok(Number(wait) >= resetSeconds);
      }
      const told = limits.find(
        ({ limit, remaining }) =>
          headers['X-RateLimit-Limit'] === String(limit) &&
          headers['X-RateLimit-Remaining'] === String(Math.max(0, Math.floor(remaining))),
      );
      assert.ok(told !== undefined);
      const share = ({ limit, remaining }: LimitState) => (limit > 0 ? remaining / limit : 0);
      assert.ok(limits.every((state) => share(state) >= share(told)));
    }),
  );
});
