// Opaque page cursors: where the last page ended, as base64url JSON. They come back from the caller, so they are
// hostile input, and what they hold goes into a query: each value must be one that PostgreSQL takes for its type.

/** What each value must be: `uuid` and `time` (ISO 8601 UTC, up to microseconds) are strings of that form. */
export type CursorField = 'string' | 'number' | 'integer' | 'uuid' | 'time';

export type CursorValues<Shape extends readonly CursorField[]> = {
  -readonly [Field in keyof Shape]: Shape[Field] extends 'number' | 'integer' ? number : string;
};

// A sort value of some length and an id, with room; it travels in a URL.
const MAX_CURSOR_CHARACTERS = 512;

const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const TIME = /^[1-9]\d{3}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z$/;

const IS_FIELD: Record<CursorField, (value: unknown) => boolean> = {
  // PostgreSQL has no text with the character 0 and no half surrogate pairs.
  string: (value) => typeof value === 'string' && value.isWellFormed() && !value.includes('\0'),
  number: (value) => Number.isFinite(value),
  integer: (value) => Number.isSafeInteger(value),
  uuid: (value) => typeof value === 'string' && UUID.test(value),
  time: (value) => typeof value === 'string' && TIME.test(value) && isOnCalendar(value),
};

/** Returns the cursor. Throws RangeError for what `decodeCursor` would not give back, such as NaN or endless text. */
export function encodeCursor(values: readonly (string | number)[]): string {
  if (!values.every((value) => IS_FIELD[typeof value === 'number' ? 'number' : 'string'](value))) {
    throw new RangeError('a cursor holds finite numbers and well-formed text without the character 0');
  }
  const cursor = Buffer.from(JSON.stringify(values)).toString('base64url');
  if (cursor.length > MAX_CURSOR_CHARACTERS)
    throw new RangeError(`a cursor has at most ${MAX_CURSOR_CHARACTERS} characters`);
  return cursor;
}

/** Returns the values if `text` is just what `encodeCursor` makes of values of this shape, else null. Never throws. */
export function decodeCursor<const Shape extends readonly CursorField[]>(
  text: unknown,
  shape: Shape,
): CursorValues<Shape> | null {
  if (typeof text !== 'string' || text.length > MAX_CURSOR_CHARACTERS) return null;
  const json = Buffer.from(text, 'base64url').toString();
  const values = parseJson(json);
  if (!Array.isArray(values) || values.length !== shape.length) return null;
  if (!shape.every((field, at) => IS_FIELD[field](values[at]))) return null;
  // One position has one spelling: refuses loose base64, loose JSON and broken UTF-8 in one go.
  if (Buffer.from(JSON.stringify(values)).toString('base64url') !== text) return null;
  return values as CursorValues<Shape>;
}

function parseJson(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    return undefined;
  }
}

/** Answers whether the day and the time of day exist: `Date.parse` alone lets the 30th of February pass. */
function isOnCalendar(time: string): boolean {
  const ms = Date.parse(time);
  return !Number.isNaN(ms) && new Date(ms).toISOString().slice(0, 19) === time.slice(0, 19);
}
