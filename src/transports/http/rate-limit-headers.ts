import type { LimitState } from '../../kernel/invoke.ts';

const SECOND_MS = 1_000;

/**
 * The headers that tell a metered caller where it stands, names and values in turn. `RateLimit-Policy` and `RateLimit`
 * (draft-ietf-httpapi-ratelimit-headers-10) list every limit. The older `X-RateLimit-*` have room for one: the limit
 * with the smallest share left, since that is the one to be met first; of equal ones the first. `X-RateLimit-Reset` is
 * in Unix seconds. Plain concatenation, because every metered answer comes through here.
 */
export function rateLimitHeaders(limits: readonly LimitState[], nowMs: number): string[] {
  const [first] = limits;
  if (first === undefined) return [];
  let policies = '';
  let states = '';
  let tightest = first;
  let smallestShare = Number.POSITIVE_INFINITY;
  for (const state of limits) {
    const separator = policies === '' ? '"' : ', "';
    policies += `${separator}${state.policy}";q=${state.limit};w=${state.windowSeconds}`;
    states += `${separator}${state.policy}";r=${whole(state.remaining)};t=${Math.ceil(state.resetSeconds)}`;
    const share = state.limit > 0 ? state.remaining / state.limit : 0;
    if (share < smallestShare) {
      smallestShare = share;
      tightest = state;
    }
  }
  return [
    'RateLimit-Policy',
    policies,
    'RateLimit',
    states,
    'X-RateLimit-Limit',
    String(tightest.limit),
    'X-RateLimit-Remaining',
    String(whole(tightest.remaining)),
    'X-RateLimit-Reset',
    String(Math.ceil(nowMs / SECOND_MS + tightest.resetSeconds)),
  ];
}

/** Structured fields take whole numbers only, and there is no less than nothing left. */
function whole(remaining: number): number {
  return Math.max(0, Math.floor(remaining));
}
