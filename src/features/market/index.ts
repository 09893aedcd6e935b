import type { Feature } from '../../kernel/operation.ts';
import type { Cache, CacheState } from '../../platform/cache.ts';
import { createCatalog } from './catalog.ts';
import { coinbase } from './coinbase.ts';
import { coingecko } from './coingecko.ts';
import { coinmarketcap } from './coinmarketcap.ts';
import { coinpaprika } from './coinpaprika.ts';
import type { ConsensusParts } from './consensus-price.ts';
import { cryptocompare } from './cryptocompare.ts';
import { getPrice } from './get-price.ts';
import { guardSource } from './guarded-source.ts';
import { kraken } from './kraken.ts';
import { listSymbols } from './list-symbols.ts';
import type { FailureReason, PriceSource } from './price-source.ts';
import { simulatedSources } from './simulated.ts';

/** What MARKET_SOURCES may name. */
export const sourceNames = [
  'coingecko',
  'coinpaprika',
  'coinmarketcap',
  'cryptocompare',
  'kraken',
  'coinbase',
  'simulated',
] as const;
type SourceName = (typeof sourceNames)[number];
type LiveSourceName = Exclude<SourceName, 'simulated'>;

export interface MarketParts {
  /** Names of sources, from MARKET_SOURCES. */
  readonly sources: readonly string[];
  readonly apiKeys: {
    readonly coingecko?: string | undefined;
    readonly coinmarketcap?: string | undefined;
    readonly cryptocompare?: string | undefined;
  };
  readonly cache: Cache;
  readonly wallClockMs: () => number;
  readonly baseUrls?: Partial<Record<LiveSourceName, string>> | undefined;
  readonly fetch?: typeof fetch | undefined;
  /** Sources that must agree; where absent two, or one when only one is configured. */
  readonly minSources?: number | undefined;
  /** Largest (max - min) / median that still makes a price. */
  readonly maxSpread?: number | undefined;
  /** Told of every call of a source and of every price by its cache state. */
  readonly observe?:
    | {
        readonly sourceCall?: ((source: string, outcome: FailureReason | 'ok') => void) | undefined;
        readonly price?: ((state: CacheState) => void) | undefined;
      }
    | undefined;
}

/** One source can be wrong unnoticed; two that agree rarely are. */
const MIN_SOURCES_DEFAULT = 2;

/** Honest sources stay within one per cent; five leaves room for thin markets and still catches a wrong asset. */
const MAX_SPREAD_DEFAULT = 0.05;

/**
 * Market prices. Throws an Error that names what is wrong for sources that are unknown, doubled, none, or simulated beside
 * live ones, for a missing or unusable API key, and for fewer sources than must agree.
 */
export function createMarket(parts: MarketParts): Feature & { close(): void } {
  const { cache, wallClockMs, observe, maxSpread = MAX_SPREAD_DEFAULT } = parts;
  const names = checkedNames(parts.sources);
  const simulated = simulatedSources(wallClockMs);
  const sources = names.includes('simulated')
    ? simulated
    : names.map((name) => guardSource(openSource(name as LiveSourceName, parts), { observe: observe?.sourceCall }));
  const minSources = parts.minSources ?? Math.min(MIN_SOURCES_DEFAULT, sources.length);
  if (minSources > sources.length) {
    throw new Error(`${minSources} sources must agree, but MARKET_SOURCES names only ${sources.length}`);
  }
  const consensusOf = (sources: readonly PriceSource[]): ConsensusParts => ({
    sources,
    minSources,
    maxSpread,
    wallClockMs,
  });
  const catalog = createCatalog(sources, minSources);
  const closing = new AbortController();
  return {
    name: 'market',
    operations: [
      getPrice({
        cache,
        catalog,
        live: consensusOf(sources),
        simulated: { ...consensusOf(simulated), minSources: Math.min(minSources, simulated.length) },
        wallClockMs,
        signal: closing.signal,
        observe: observe?.price,
      }),
      listSymbols(catalog),
    ],
    /** Gives up calls of sources that are under way. */
    close: () => closing.abort(new Error('the market is closed')),
  };
}

function checkedNames(names: readonly string[]): readonly SourceName[] {
  if (names.length === 0) throw new Error(`MARKET_SOURCES is empty; it may name ${sourceNames.join(', ')}`);
  const unknown = names.filter((name) => !sourceNames.some((known) => known === name));
  if (unknown.length > 0) {
    throw new Error(`MARKET_SOURCES names ${unknown.join(', ')}, which is none of ${sourceNames.join(', ')}`);
  }
  if (new Set(names).size < names.length) throw new Error('MARKET_SOURCES names a source twice');
  if (names.includes('simulated') && names.length > 1) {
    throw new Error('MARKET_SOURCES names simulated beside live sources; it stands alone');
  }
  return names as readonly SourceName[];
}

function openSource(name: LiveSourceName, parts: MarketParts): PriceSource {
  const options = { baseUrl: parts.baseUrls?.[name], fetch: parts.fetch };
  switch (name) {
    case 'coingecko':
      return coingecko({ ...options, apiKey: usableKey(name, parts.apiKeys.coingecko) });
    case 'coinpaprika':
      return coinpaprika(options);
    case 'coinmarketcap': {
      const apiKey = usableKey(name, parts.apiKeys.coinmarketcap);
      if (apiKey === undefined) throw new Error('the source coinmarketcap needs COINMARKETCAP_API_KEY');
      return coinmarketcap({ ...options, apiKey });
    }
    case 'cryptocompare':
      return cryptocompare({ ...options, apiKey: usableKey(name, parts.apiKeys.cryptocompare) });
    case 'kraken':
      return kraken({ ...options, wallClockMs: parts.wallClockMs });
    case 'coinbase':
      return coinbase(options);
  }
}

/** Refuses what cannot be a header here, without showing it: the error of the HTTP client would quote it. */
function usableKey(name: string, key: string | undefined): string | undefined {
  if (key !== undefined && !/^[\x21-\x7e]{1,512}$/.test(key)) {
    throw new Error(`the API key of ${name} holds characters that no key has (a space or line break at the end?)`);
  }
  return key;
}
