import { AppError } from '../../kernel/errors.ts';
import { nearestNames } from '../../lib/nearest-names.ts';
import type { PriceSource } from './price-source.ts';
import { type Asset, assets, type Currency, currencies } from './symbols.ts';

/** An asset and the currencies it can be priced in by the sources at hand. */
interface Listing {
  readonly asset: Asset;
  readonly currencies: readonly Currency[];
}

/** What can be asked here, in the order of the symbols. */
export interface Catalog {
  readonly listings: readonly Listing[];
  /** Throws AppError `unknown_symbol` with the nearest symbols, `invalid_input` for a currency the asset is not priced in. */
  find(symbol: string, currency: Currency): Asset;
}

/** Lists every asset for which enough sources are configured to ever agree on a price, per currency. */
export function createCatalog(sources: readonly PriceSource[], minSources: number): Catalog {
  const bySymbol = new Map<string, Listing>();
  for (const asset of assets) {
    const priced = currencies.filter(
      (currency) => sources.filter((source) => source.knows(asset, currency)).length >= minSources,
    );
    if (priced.length > 0) bySymbol.set(asset.symbol, { asset, currencies: priced });
  }
  return {
    listings: [...bySymbol.values()],
    find(symbol, currency) {
      const listing = bySymbol.get(symbol);
      if (listing === undefined) throw unknownSymbol(symbol, bySymbol.keys());
      if (!listing.currencies.includes(currency)) throw unpricedCurrency(listing, currency);
      return listing.asset;
    },
  };
}

function unknownSymbol(symbol: string, known: Iterable<string>): AppError {
  const nearest = nearestNames(symbol, known);
  const hint = nearest.length > 0 ? `the nearest are ${nearest.join(', ')}` : 'list_symbols names those that are';
  return new AppError('unknown_symbol', `The symbol ${symbol} is not known; ${hint}.`, {
    details: { symbol, nearest },
  });
}

function unpricedCurrency({ asset, currencies }: Listing, currency: Currency): AppError {
  const message = `${asset.symbol} is not priced in ${currency} here; ask for ${currencies.join(', ')}.`;
  return new AppError('invalid_input', message, { details: { symbol: asset.symbol, currency, currencies } });
}
