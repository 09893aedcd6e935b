import { z } from 'zod';
import { type PriceSource, SourceError, type SourceOptions } from './price-source.ts';
import { getJson, price } from './source-http.ts';
import type { Currency } from './symbols.ts';

const NAME = 'kraken';

/** Not every asset trades against each of them; a pair it does not have is answered as not_listed. */
const currencies: ReadonlySet<Currency> = new Set(['USD', 'EUR', 'GBP']);

/** `c` is the last trade: price, then lot volume. */
const answer = z.object({
  error: z.array(z.string()),
  result: z.record(z.string(), z.object({ c: z.tuple([price]).rest(z.unknown()) })).optional(),
});

/** Kraken, last trade on its own book. */
export function kraken(options: SourceOptions & { readonly wallClockMs: () => number }): PriceSource {
  const { baseUrl = 'https://api.kraken.com' } = options;
  return {
    name: NAME,
    knows: (asset, currency) => asset.ids.kraken !== null && currencies.has(currency),
    async fetchPrice(asset, currency, signal) {
      const request = {
        source: NAME,
        url: `${baseUrl}/0/public/Ticker`,
        query: { pair: `${asset.ids.kraken}${currency}` },
        schema: answer,
      };
      const { error, result = {} } = await getJson(options, request, signal);
      // Errors come with status 200.
      if (error.includes('EQuery:Unknown asset pair')) throw new SourceError(NAME, 'not_listed');
      if (error.length > 0) throw new SourceError(NAME, 'provider_error', error.join(', ').slice(0, 200));
      // One pair was asked for; the answer names it in Kraken's older spelling (XBTUSD comes as XXBTZUSD).
      const [ticker, ...others] = Object.values(result);
      if (ticker === undefined || others.length > 0) throw new SourceError(NAME, 'schema', 'not exactly one pair');
      // The ticker has no time of its own: it is the state of the book when it is asked, so the time of the answer is used.
      return { name: NAME, price: ticker.c[0], asOf: new Date(options.wallClockMs()) };
    },
  };
}
