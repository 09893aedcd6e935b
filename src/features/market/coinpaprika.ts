import { z } from 'zod';
import { type PriceSource, SourceError, type SourceOptions } from './price-source.ts';
import { getJson, isoTime, price } from './source-http.ts';
import type { Currency } from './symbols.ts';

const NAME = 'coinpaprika';

/** A part of what its parameter `quotes` accepts. */
const currencies: ReadonlySet<Currency> = new Set(['USD', 'EUR', 'GBP', 'JPY', 'CHF', 'CAD', 'AUD']);

const answer = z.object({ last_updated: isoTime, quotes: z.record(z.string(), z.object({ price })) });

/** CoinPaprika, average over many exchanges. */
export function coinpaprika(options: SourceOptions = {}): PriceSource {
  const { baseUrl = 'https://api.coinpaprika.com/v1' } = options;
  return {
    name: NAME,
    knows: (asset, currency) => asset.ids.coinpaprika !== null && currencies.has(currency),
    async fetchPrice(asset, currency, signal) {
      const request = {
        source: NAME,
        url: `${baseUrl}/tickers/${asset.ids.coinpaprika}`,
        query: { quotes: currency },
        schema: answer,
        notListedStatus: 404,
      };
      const { last_updated, quotes } = await getJson(options, request, signal);
      const quote = quotes[currency];
      if (quote === undefined) throw new SourceError(NAME, 'not_listed');
      return { name: NAME, price: quote.price, asOf: last_updated };
    },
  };
}
