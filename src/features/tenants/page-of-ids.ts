import { readCursor } from '../../kernel/operation.ts';
import { encodeCursor } from '../../lib/cursor.ts';

/**
 * A page of rows in the order of their ids. `load` is asked for rows after an id, one more than the page holds. Throws
 * `invalid_input` for a cursor that was not handed out.
 */
export async function pageOfIds<Row, Item>(
  { limit, cursor }: { readonly limit: number; readonly cursor?: string | undefined },
  load: (after: string, limit: number) => Promise<readonly Row[]>,
  toItem: (row: Row) => Item & { readonly id: string },
) {
  const [after = ''] = readCursor(cursor, ['string']) ?? [];
  const rows = await load(after, limit + 1);
  const items = rows.slice(0, limit).map(toItem);
  const last = rows.length > limit ? items.at(-1) : undefined;
  return { items, nextCursor: last === undefined ? null : encodeCursor([last.id]) };
}
