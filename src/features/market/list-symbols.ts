import { z } from 'zod';
import { AppError } from '../../kernel/errors.ts';
import { defineOperation, PAGE_SIZE_MAX, pageInput, pageOf } from '../../kernel/operation.ts';
import { decodeCursor, encodeCursor } from '../../lib/cursor.ts';
import type { Catalog } from './catalog.ts';
import { currencies } from './symbols.ts';

/** Longer than any symbol or name. */
const QUERY_LENGTH_MAX = 64;

const input = z.strictObject({
  query: z.string().min(1).max(QUERY_LENGTH_MAX).optional().describe('Part of a symbol or name'),
  ...pageInput,
  // All of them fit on one page, and whoever asks mostly wants all.
  limit: pageInput.limit.unwrap().default(PAGE_SIZE_MAX).describe('Items per page'),
});

const output = pageOf(z.object({ symbol: z.string(), name: z.string(), currencies: z.array(z.enum(currencies)) }));

/** What get_price can be asked here, in the order of the symbols. */
export const listSymbols = (catalog: Catalog) =>
  defineOperation({
    name: 'market.list_symbols',
    names: { tool: 'list_symbols' },
    route: { method: 'POST', path: '/tools/list_symbols' },
    summary: 'The assets that get_price knows, and the currencies each is priced in',
    permission: 'tools:read',
    audience: 'tenant',
    transports: ['http', 'mcp', 'cli'],
    cost: 0,
    input,
    output,
    answer: 'page',
    idempotent: true,
    readOnly: true,
    example: { query: 'bit' },
    async run(_context, { query = '', limit, cursor }) {
      const wanted = query.toUpperCase();
      const after = cursor === undefined ? '' : position(cursor);
      const found = catalog.listings.filter(
        ({ asset }) =>
          asset.symbol > after && (asset.symbol.includes(wanted) || asset.name.toUpperCase().includes(wanted)),
      );
      const page = found.slice(0, limit);
      const last = page.at(-1);
      return {
        items: page.map((listing) => ({
          symbol: listing.asset.symbol,
          name: listing.asset.name,
          currencies: [...listing.currencies],
        })),
        nextCursor: found.length > limit && last !== undefined ? encodeCursor([last.asset.symbol]) : null,
      };
    },
  });

function position(cursor: string): string {
  const values = decodeCursor(cursor, ['string']);
  if (values === null) throw new AppError('invalid_input', 'The cursor is not one that a page before gave.');
  return values[0];
}
