// UUIDs of version 7 (RFC 9562, section 5.7): they sort by time, so an index grows at one end, and they can be made
// before the row they name. Within a process they strictly increase, by the counter of section 6.2, method 1: 26 bits
// after the time (12 of rand_a, 14 of rand_b), started at random each millisecond, then 48 random bits.
import { randomBytes } from 'node:crypto';

const MAX_TIME_MS = 2 ** 48 - 1;
const COUNTER_END = 2 ** 26;
// Only the lower half is a start, so that at least 2^25 more fit into the same millisecond.
const COUNTER_START_BITS = 25;
// A clock corrected by less than this keeps the order; one further back is another clock (a test's), and is believed.
const MAX_HELD_BACK_MS = 10_000;
// One system call serves this many UUIDs: drawing bytes singly costs more than everything else here.
const TAILS_PER_BLOCK = 1_024;
const TAIL_BYTES = 6;
const TAIL_HEX = 2 * TAIL_BYTES;

const V7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/i;

let timeMs = -1;
let timeHex = '';
let counter = 0;
let tails = '';
let tailsUsed = TAILS_PER_BLOCK;

/**
 * Returns a lower-case UUID of version 7, larger than the one before while the clock does not go back by more than
 * ten seconds. `nowMs` is Unix time in milliseconds, a fraction is dropped. Throws RangeError when it is outside
 * 0..2^48-1.
 */
export function uuidV7(nowMs: number): string {
  if (!(nowMs >= 0 && nowMs <= MAX_TIME_MS)) throw new RangeError('nowMs must be within 0..2^48-1');
  if (nowMs >= timeMs + 1 || nowMs < timeMs - MAX_HELD_BACK_MS) startMillisecond(Math.floor(nowMs));
  else if (++counter === COUNTER_END) startMillisecond(timeMs + 1);
  const third = (0x7000 | (counter >>> 14)).toString(16);
  const fourth = (0x8000 | (counter & 0x3fff)).toString(16);
  return `${timeHex}-${third}-${fourth}-${randomTail()}`;
}

/** Returns the Unix time in milliseconds inside a UUID of version 7. Throws RangeError when it is not one. */
export function uuidV7Time(uuid: string): number {
  if (!V7.test(uuid)) throw new RangeError('not a UUID of version 7');
  return Number.parseInt(uuid.slice(0, 8) + uuid.slice(9, 13), 16);
}

function startMillisecond(ms: number): void {
  timeMs = ms;
  const hex = ms.toString(16).padStart(12, '0');
  timeHex = `${hex.slice(0, 8)}-${hex.slice(8)}`;
  counter = Number.parseInt(randomTail(), 16) % 2 ** COUNTER_START_BITS;
}

function randomTail(): string {
  if (tailsUsed === TAILS_PER_BLOCK) {
    tails = randomBytes(TAILS_PER_BLOCK * TAIL_BYTES).toString('hex');
    tailsUsed = 0;
  }
  const start = tailsUsed++ * TAIL_HEX;
  return tails.slice(start, start + TAIL_HEX);
}
