// A small cache in memory: at most `maxEntries`, each with its own end, the least recently used leaves first.

/**
 * Every operation but `deleteWhere` takes constant time. Time is an argument (any clock, as long as it is one), so
 * nothing runs in the background: an entry past its end is never returned and goes when it is asked for or pushed
 * out.
 */
export class BoundedMap<K, V> {
  readonly #maxEntries: number;
  // A Map iterates in the order of insertion; inserting again on every use makes that the order of use.
  readonly #entries = new Map<K, { value: V; expiresAtMs: number }>();

  /** Throws RangeError unless `maxEntries` is a whole number from 1. */
  constructor(maxEntries: number) {
    if (!(Number.isSafeInteger(maxEntries) && maxEntries >= 1))
      throw new RangeError('maxEntries must be a whole number from 1');
    this.#maxEntries = maxEntries;
  }

  /** Entries held, those past their end that nobody asked for included. */
  get size(): number {
    return this.#entries.size;
  }

  /** Returns the value while `nowMs` is before its end, and counts as a use. */
  get(key: K, nowMs: number): V | undefined {
    const entry = this.#entries.get(key);
    if (entry === undefined) return undefined;
    this.#entries.delete(key);
    if (!(nowMs < entry.expiresAtMs)) return undefined;
    this.#entries.set(key, entry);
    return entry.value;
  }

  /**
   * Stores or replaces a value until `expiresAtMs`; when that is one too many, the least recently used entry leaves.
   */
  set(key: K, value: V, expiresAtMs: number): void {
    this.#entries.delete(key);
    this.#entries.set(key, { value, expiresAtMs });
    if (this.#entries.size <= this.#maxEntries) return;
    for (const leastRecentlyUsed of this.#entries.keys()) {
      this.#entries.delete(leastRecentlyUsed);
      break;
    }
  }

  /** Returns whether there was such an entry. */
  delete(key: K): boolean {
    return this.#entries.delete(key);
  }

  /** Deletes every entry that `matches`, looking at each, and returns how many there were. */
  deleteWhere(matches: (value: V, key: K) => boolean): number {
    const before = this.#entries.size;
    for (const [key, { value }] of this.#entries) if (matches(value, key)) this.#entries.delete(key);
    return before - this.#entries.size;
  }

  clear(): void {
    this.#entries.clear();
  }
}
