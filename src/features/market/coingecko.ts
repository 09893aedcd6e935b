import { z } from 'zod';
import { type PriceSource, SourceError, type SourceOptions } from './price-source.ts';
import { getJson, price, unixTime } from './source-http.ts';
import type { Currency } from './symbols.ts';

const NAME = 'coingecko';

/** Listed by its /simple/supported_vs_currencies. */
const currencies: ReadonlySet<Currency> = new Set(['USD', 'EUR', 'GBP', 'JPY', 'CHF', 'CAD', 'AUD']);

/** `{ bitcoin: { usd: 67187.33, last_updated_at: 1711356300 } }`; an id it does not have is simply absent. */
const answer = z.record(z.string(), z.record(z.string(), z.unknown()));
const fields = z.object({ price, asOf: unixTime });

/** CoinGecko, average over many exchanges. The (demo) key is optional and raises its rate limit. */
export function coingecko(options: SourceOptions = {}): PriceSource {
  const { baseUrl = 'https://api.coingecko.com/api/v3', apiKey } = options;
  return {
    name: NAME,
    knows: (asset, currency) => asset.ids.coingecko !== null && currencies.has(currency),
    async fetchPrice(asset, currency, signal) {
      const id = asset.ids.coingecko ?? '';
      const request = {
        source: NAME,
        url: `${baseUrl}/simple/price`,
        query: { ids: id, vs_currencies: currency.toLowerCase(), include_last_updated_at: 'true', precision: 'full' },
        headers: apiKey === undefined ? undefined : { 'x-cg-demo-api-key': apiKey },
        schema: answer,
      };
      const found = (await getJson(options, request, signal))[id];
      if (found === undefined) throw new SourceError(NAME, 'not_listed');
      const quote = fields.safeParse({ price: found[currency.toLowerCase()], asOf: found['last_updated_at'] });
      if (!quote.success) throw new SourceError(NAME, 'schema', undefined, quote.error);
      return { name: NAME, ...quote.data };
    },
  };
}
