import { z } from 'zod';
import { type PriceSource, SourceError, type SourceOptions } from './price-source.ts';
import { getJson, price, unixTime } from './source-http.ts';
import type { Currency } from './symbols.ts';

const NAME = 'cryptocompare';

const currencies: ReadonlySet<Currency> = new Set(['USD', 'EUR', 'GBP', 'JPY', 'CHF', 'CAD', 'AUD']);

/** Errors come with status 200, `Response: "Error"` and without RAW. */
const answer = z.object({
  RAW: z.record(z.string(), z.record(z.string(), z.object({ PRICE: price, LASTUPDATE: unixTime }))).optional(),
});

/** CryptoCompare (CoinDesk Data), volume-weighted over exchanges. The key is optional. */
export function cryptocompare(options: SourceOptions = {}): PriceSource {
  const { baseUrl = 'https://min-api.cryptocompare.com', apiKey } = options;
  return {
    name: NAME,
    knows: (asset, currency) => asset.ids.cryptocompare !== null && currencies.has(currency),
    async fetchPrice(asset, currency, signal) {
      const symbol = asset.ids.cryptocompare ?? '';
      const request = {
        source: NAME,
        url: `${baseUrl}/data/pricemultifull`,
        query: { fsyms: symbol, tsyms: currency },
        headers: apiKey === undefined ? undefined : { authorization: `Apikey ${apiKey}` },
        schema: answer,
      };
      const { RAW } = await getJson(options, request, signal);
      if (RAW === undefined) throw new SourceError(NAME, 'provider_error');
      const quote = RAW[symbol]?.[currency];
      if (quote === undefined) throw new SourceError(NAME, 'not_listed');
      return { name: NAME, price: quote.PRICE, asOf: quote.LASTUPDATE };
    },
  };
}
