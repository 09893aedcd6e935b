import { z } from 'zod';
import { type PriceSource, SourceError, type SourceOptions } from './price-source.ts';
import { getJson, isoTime, price } from './source-http.ts';
import type { Currency } from './symbols.ts';

const NAME = 'coinmarketcap';

const currencies: ReadonlySet<Currency> = new Set(['USD', 'EUR', 'GBP', 'JPY', 'CHF', 'CAD', 'AUD']);

/** Asked by its own numeric id, it answers one object per id; by symbol it would be a list of all that share the symbol. */
const answer = z.object({
  status: z.object({ error_code: z.string() }),
  data: z
    .record(z.string(), z.object({ quote: z.record(z.string(), z.object({ price, last_updated: isoTime })) }))
    .optional(),
});

/** CoinMarketCap, average over many exchanges. Needs a key. */
export function coinmarketcap(options: SourceOptions & { readonly apiKey: string }): PriceSource {
  const { baseUrl = 'https://pro-api.coinmarketcap.com', apiKey } = options;
  return {
    name: NAME,
    knows: (asset, currency) => asset.ids.coinmarketcap !== null && currencies.has(currency),
    async fetchPrice(asset, currency, signal) {
      const id = String(asset.ids.coinmarketcap);
      const request = {
        source: NAME,
        url: `${baseUrl}/v2/cryptocurrency/quotes/latest`,
        query: { id, convert: currency },
        headers: { 'x-cmc_pro_api_key': apiKey },
        schema: answer,
      };
      const { status, data } = await getJson(options, request, signal);
      // Errors can come with status 200.
      if (status.error_code !== '0')
        throw new SourceError(NAME, 'provider_error', `error ${status.error_code.slice(0, 10)}`);
      const quote = data?.[id]?.quote[currency];
      if (quote === undefined) throw new SourceError(NAME, 'not_listed');
      return { name: NAME, price: quote.price, asOf: quote.last_updated };
    },
  };
}
