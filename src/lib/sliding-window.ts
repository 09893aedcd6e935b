// The core of the in-process rate limiter: in ANY half-open window (t - windowMs, t] no more units than the limit are
// admitted, and a refusal costs nothing. An exact log would need a record per admission; here neighbouring admissions
// share a slot that is given back as a whole when its LAST one leaves the window. That errs only towards refusing,
// and by little: a slot joins different moments only within a sixtieth of the window and only up to a sixtieth of the
// limit, so under saturation every window admits at least 59/60 of the limit. A first burst is exact, and so is every
// limit below 120.

export type WindowVerdict = {
  admitted: boolean;
  /** Units left, after the call's own when it took them. */
  remaining: number;
  /** 0 when admitted; else how long until this cost fits if nobody else takes any; Infinity when it never will. */
  retryAfterMs: number;
  /** How long until the whole limit is free again. */
  resetMs: number;
};

// What is promised of the granularity, in time and in units alike.
const SHARES_PER_WINDOW = 60;
// At most 61 slots end by age and 120 by fill (two neighbours hold more than a sixtieth together). Only a limit that
// keeps changing could ask for more; then the newest slot takes everything, which refuses longer, never admits more.
const MAX_SLOTS = 256;
// 4 slots of two numbers are 64 bytes, which V8 keeps inside the array object: small for the many who call rarely.
const FIRST_SLOTS = 4;

export class SlidingWindow {
  readonly #windowMs: number;
  /** A ring of pairs: time of the slot's last admission, units admitted in it. */
  #ring = new Float64Array(2 * FIRST_SLOTS);
  #oldest = 0;
  #slots = 0;
  #held = 0;
  #newestBegan = 0;
  #latest = Number.NEGATIVE_INFINITY;

  /** Throws RangeError unless the window is a positive, finite number of milliseconds. */
  constructor(windowMs: number) {
    if (!(windowMs > 0 && Number.isFinite(windowMs))) throw new RangeError('windowMs must be positive and finite');
    this.#windowMs = windowMs;
  }

  /** Answers whether `cost` would be admitted, and takes nothing: ask several windows first, then `admit` in each. */
  check(nowMs: number, limit: number, cost: number): WindowVerdict {
    this.#release(nowMs);
    return this.#verdict(nowMs, limit, cost, this.#admits(limit, cost));
  }

  /**
   * Takes all of `cost` units or none. `nowMs` comes from a clock that does not go back (fractions allowed); if it
   * does, time stands still here until it has caught up. `limit` may differ from call to call and holds at once; a
   * cost of 0 always passes. Throws RangeError when the time is not finite or the cost is not a whole number from 0.
   */
  admit(nowMs: number, limit: number, cost: number): WindowVerdict {
    this.#release(nowMs);
    const admitted = this.#admits(limit, cost);
    if (admitted && cost > 0) this.#take(cost, limit / SHARES_PER_WINDOW);
    return this.#verdict(nowMs, limit, cost, admitted);
  }

  /** Answers whether everything admitted has left the window, so that forgetting this subject changes nothing. */
  isIdle(nowMs: number): boolean {
    this.#release(nowMs);
    return this.#slots === 0;
  }

  /** Moves time on and gives back every slot whose last admission has left the window. */
  #release(nowMs: number): void {
    if (!Number.isFinite(nowMs)) throw new RangeError('nowMs must be finite');
    if (nowMs > this.#latest) this.#latest = nowMs;
    while (this.#slots > 0 && this.#releaseTime(0) <= this.#latest) {
      this.#held -= this.#units(0);
      this.#oldest = this.#index(1);
      this.#slots--;
    }
    if (this.#slots === 0 && this.#ring.length > 2 * FIRST_SLOTS) this.#resize(FIRST_SLOTS);
  }

  #admits(limit: number, cost: number): boolean {
    if (!(Number.isSafeInteger(cost) && cost >= 0)) throw new RangeError('cost must be a whole number from 0');
    return cost === 0 || this.#held + cost <= limit;
  }

  #take(cost: number, unitsPerSlot: number): void {
    this.#held += cost;
    const newest = this.#slots - 1;
    if (this.#slots > 0 && this.#joins(newest, cost, unitsPerSlot)) {
      this.#write(newest, this.#units(newest) + cost);
      return;
    }
    if (this.#slots * 2 === this.#ring.length) this.#resize(this.#slots * 2);
    this.#write(this.#slots, cost);
    this.#slots++;
    this.#newestBegan = this.#latest;
  }

  #joins(newest: number, cost: number, unitsPerSlot: number): boolean {
    if (this.#last(newest) === this.#latest || this.#slots === MAX_SLOTS) return true;
    const ageMs = this.#latest - this.#newestBegan;
    return ageMs < this.#windowMs / SHARES_PER_WINDOW && this.#units(newest) + cost <= unitsPerSlot;
  }

  #verdict(nowMs: number, limit: number, cost: number, admitted: boolean): WindowVerdict {
    return {
      admitted,
      remaining: Math.max(0, limit - this.#held),
      retryAfterMs: admitted ? 0 : this.#timeHoldingAtMost(limit - cost) - nowMs,
      resetMs: this.#slots === 0 ? 0 : this.#releaseTime(this.#slots - 1) - nowMs,
    };
  }

  /** Returns the time from which no more than `units` are still held, Infinity for fewer than none. */
  #timeHoldingAtMost(units: number): number {
    let held = this.#held;
    for (let slot = 0; slot < this.#slots; slot++) {
      held -= this.#units(slot);
      if (held <= units) return this.#releaseTime(slot);
    }
    return Number.POSITIVE_INFINITY;
  }

  #resize(slots: number): void {
    const ring = new Float64Array(2 * slots);
    for (let slot = 0; slot < this.#slots; slot++) {
      ring[2 * slot] = this.#last(slot);
      ring[2 * slot + 1] = this.#units(slot);
    }
    this.#ring = ring;
    this.#oldest = 0;
  }

  // Slots are numbered from the oldest, 0; the ring's size is a power of two.
  #index(slot: number): number {
    return (this.#oldest + slot) & (this.#ring.length / 2 - 1);
  }

  #last(slot: number): number {
    return this.#ring[2 * this.#index(slot)] as number;
  }

  #units(slot: number): number {
    return this.#ring[2 * this.#index(slot) + 1] as number;
  }

  #releaseTime(slot: number): number {
    return this.#last(slot) + this.#windowMs;
  }

  #write(slot: number, units: number): void {
    const at = 2 * this.#index(slot);
    this.#ring[at] = this.#latest;
    this.#ring[at + 1] = units;
  }
}
