import { z } from 'zod';
import type { PriceSource, SourceOptions } from './price-source.ts';
import { getJson, isoTime, price } from './source-http.ts';
import type { Currency } from './symbols.ts';

const NAME = 'coinbase';

/** Not every asset trades against each of them; a product it does not have is answered as not_listed. */
const currencies: ReadonlySet<Currency> = new Set(['USD', 'EUR', 'GBP']);

const answer = z.object({ price, time: isoTime });

/** Coinbase Exchange, last trade on its own book. */
export function coinbase(options: SourceOptions = {}): PriceSource {
  const { baseUrl = 'https://api.exchange.coinbase.com' } = options;
  return {
    name: NAME,
    knows: (asset, currency) => asset.ids.coinbase !== null && currencies.has(currency),
    async fetchPrice(asset, currency, signal) {
      const request = {
        source: NAME,
        url: `${baseUrl}/products/${asset.ids.coinbase}-${currency}/ticker`,
        schema: answer,
        notListedStatus: 404,
      };
      const ticker = await getJson(options, request, signal);
      return { name: NAME, price: ticker.price, asOf: ticker.time };
    },
  };
}
