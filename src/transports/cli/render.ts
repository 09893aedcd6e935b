/** Answers for people: `key: value` lines, and lists as aligned tables. */

type Fields = Readonly<Record<string, unknown>>;

const INDENT = '  ';

/** An answer as text that ends with a line break. A page is its table, then where the next page begins. */
export function render(output: unknown): string {
  if (!isFields(output)) return `${word(output)}\n`;
  const { items, nextCursor, ...rest } = output;
  if (!Array.isArray(items) || Object.keys(rest).length > 0) return `${lines(output, '').join('\n')}\n`;
  const more = typeof nextCursor === 'string' ? [`more: --cursor ${word(nextCursor)}`] : [];
  return `${[...(items.length === 0 ? ['none'] : table(items)), ...more].join('\n')}\n`;
}

/** One line of text: what could move a terminal's cursor or break the line is shown as an escape. */
export function printable(text: string): string {
  return text.replace(/\p{Cc}/gu, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

function lines(fields: Fields, prefix: string): string[] {
  return Object.entries(fields).flatMap(([name, value]) => {
    const label = `${prefix}${name}`;
    if (isFields(value)) return lines(value, `${label}.`);
    if (!Array.isArray(value) || !value.some(isFields)) return [`${label}: ${word(value)}`];
    return [`${label}:`, ...table(value).map((line) => `${INDENT}${line}`)];
  });
}

/** Rows below each other; a column that is empty in every row is left out. */
function table(rows: readonly unknown[]): string[] {
  const records = rows.map((row) => (isFields(row) ? row : { value: row }));
  const names = [...new Set(records.flatMap((record) => Object.keys(record)))].filter((name) =>
    records.some((record) => record[name] !== null && record[name] !== undefined),
  );
  const cells = [names, ...records.map((record) => names.map((name) => cell(record[name])))];
  const widths = names.map((_, column) => Math.max(...cells.map((row) => (row[column] ?? '').length)));
  return cells.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join(INDENT)
      .trimEnd(),
  );
}

/** A list of records has no room in a cell: how many there are says whether to ask for the one. */
function cell(value: unknown): string {
  return Array.isArray(value) && value.some(isFields) ? String(value.length) : word(value);
}

function word(value: unknown): string {
  if (value === null || value === undefined) return '-';
  if (Array.isArray(value)) return value.length === 0 ? 'none' : value.map(word).join(', ');
  return printable(typeof value === 'object' ? JSON.stringify(value) : String(value));
}

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
