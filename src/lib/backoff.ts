// 2^30 times any base is beyond every sensible ceiling, and stays a finite number.
const MAX_DOUBLINGS = 30;

/**
 * Returns how long to wait before retry number `attempt` (from 0): uniform between 0 and the exponential bound, so
 * that many that failed together do not come back together ("full jitter", M. Brooker, "Exponential Backoff And
 * Jitter", 2015). `random` returns numbers in [0, 1). Throws RangeError when `attempt` is not a whole number from 0.
 */
export function backoffMs(
  attempt: number,
  { baseMs, maxMs }: { baseMs: number; maxMs: number },
  random = Math.random,
): number {
  if (!(Number.isInteger(attempt) && attempt >= 0)) throw new RangeError('attempt must be a whole number from 0');
  return random() * Math.min(maxMs, baseMs * 2 ** Math.min(attempt, MAX_DOUBLINGS));
}
