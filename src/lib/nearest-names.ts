// "Unknown symbol, did you mean ...": the known names that one or a few typing errors separate from what was asked.

// The longest symbol that is accepted anywhere; it bounds the work per name to 32 x 32 steps.
const MAX_NAME_LENGTH = 32;
// Beyond three errors a suggestion is a guess.
const MAX_ERRORS = 3;

/**
 * Returns at most `max` of `known`, the nearest first, equally near ones in the order given. A name is near when at most
 * one error and one more for every four characters asked separate them; an error is one character added, lost or
 * changed, or two neighbours swapped. Upper and lower case are the same. Text longer than any name has none near.
 */
export function nearestNames(text: string, known: Iterable<string>, max = 3): string[] {
  const asked = text.toUpperCase();
  if (asked.length > MAX_NAME_LENGTH) return [];
  // Fewer errors than characters: else a single letter would be near every other.
  const allowed = Math.min(MAX_ERRORS, 1 + Math.floor(asked.length / 4), asked.length - 1);
  const near: { name: string; errors: number }[] = [];
  for (const name of known) {
    const candidate = name.toUpperCase();
    if (candidate.length > MAX_NAME_LENGTH || Math.abs(candidate.length - asked.length) > allowed) continue;
    const errors = countErrors(asked, candidate, allowed);
    if (errors <= allowed) near.push({ name, errors });
  }
  near.sort((a, b) => a.errors - b.errors);
  return near.slice(0, max).map(({ name }) => name);
}

// Row i, column j: errors between the first i characters of the one and the first j of the other. Written anew for each
// pair of names, but for the first row and column; allocating it each time would cost more than filling it.
const SIZE = MAX_NAME_LENGTH + 1;
const table = new Uint8Array(SIZE * SIZE);
for (let i = 0; i < SIZE; i++) table[i] = table[i * SIZE] = i;

/**
 * Returns the optimal string alignment distance (Damerau-Levenshtein in which no part is edited twice), or Infinity as
 * soon as it is known to be more than `allowed`.
 */
function countErrors(a: string, b: string, allowed: number): number {
  let leastOfRowAbove = 0;
  for (let i = 1; i <= a.length; i++) {
    let leastOfRow = i;
    for (let j = 1; j <= b.length; j++) {
      const same = a.charCodeAt(i - 1) === b.charCodeAt(j - 1);
      let errors = Math.min(entry(i - 1, j) + 1, entry(i, j - 1) + 1, entry(i - 1, j - 1) + (same ? 0 : 1));
      if (
        i > 1 &&
        j > 1 &&
        a.charCodeAt(i - 1) === b.charCodeAt(j - 2) &&
        a.charCodeAt(i - 2) === b.charCodeAt(j - 1)
      ) {
        errors = Math.min(errors, entry(i - 2, j - 2) + 1);
      }
      table[i * SIZE + j] = errors;
      leastOfRow = Math.min(leastOfRow, errors);
    }
    // Errors never become fewer further down, and a swap reaches back no further than these two rows.
    if (leastOfRow > allowed && leastOfRowAbove > allowed) return Number.POSITIVE_INFINITY;
    leastOfRowAbove = leastOfRow;
  }
  return entry(a.length, b.length);
}

function entry(i: number, j: number): number {
  return table[i * SIZE + j] as number;
}
