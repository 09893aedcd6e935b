const MINUTE_MS = 60_000;

/**
 * Counts what each subject does within a minute of the clock, to bound what one of them can cause. Forgets everything at
 * the turn of a minute, and when `subjectsMax` were counted, which only makes the bound laxer for that minute.
 */
export function createMinuteCounter(bounds: {
  readonly perMinuteMax: number;
  readonly subjectsMax: number;
}): (subject: string, nowMs: number) => boolean {
  const counts = new Map<string, number>();
  let countedMinute = 0;
  return function mayGoOn(subject, nowMs) {
    const minute = Math.floor(nowMs / MINUTE_MS);
    if (minute !== countedMinute || counts.size >= bounds.subjectsMax) {
      counts.clear();
      countedMinute = minute;
    }
    const count = (counts.get(subject) ?? 0) + 1;
    counts.set(subject, count);
    return count <= bounds.perMinuteMax;
  };
}
