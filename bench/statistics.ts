// The few figures that samples are summed up in.

/** Returns the middle of the samples, or halfway between the two in the middle. Throws RangeError when there are none. */
export function median(samples: readonly number[]): number {
  const sorted = Float64Array.from(samples).sort();
  const [below, above] = [sorted[Math.ceil(sorted.length / 2) - 1], sorted[Math.floor(sorted.length / 2)]];
  if (below === undefined || above === undefined) throw new RangeError('no samples');
  return (below + above) / 2;
}

/** Returns the sample below which that share of all lies, as in 0.99. Throws RangeError when there are none. */
export function quantile(samples: readonly number[], share: number): number {
  const sorted = Float64Array.from(samples).sort();
  const value = sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
  if (value === undefined) throw new RangeError('no samples');
  return value;
}

/** Returns the number with so many significant digits. */
export function rounded(value: number, digits = 4): number {
  return Number(value.toPrecision(digits));
}
