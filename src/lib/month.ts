// Calendar months in UTC, the periods of monthly quotas and of table partitions. Times are Unix milliseconds.

/** Returns the first millisecond of the month that holds `ms`. Throws RangeError when that is no time. */
export function monthStart(ms: number): number {
  return startOfMonth(ms, 0);
}

/** Returns the first millisecond of the month after the one that holds `ms`. Throws RangeError when that is no time. */
export function nextMonthStart(ms: number): number {
  return startOfMonth(ms, 1);
}

function startOfMonth(ms: number, monthsLater: number): number {
  const date = new Date(ms);
  // Not Date.UTC, which takes the years 0 to 99 for 1900 to 1999.
  date.setUTCFullYear(date.getUTCFullYear(), date.getUTCMonth() + monthsLater, 1);
  const start = date.setUTCHours(0, 0, 0, 0);
  if (Number.isNaN(start)) throw new RangeError('not a time, or one without this month');
  return start;
}
