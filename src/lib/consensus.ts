// One price from several sources: their median, after the sources that contradict the others are set aside. All
// arithmetic is decimal and exact; only `spread` and `confidence` are rounded, at the end.
import { Decimal } from 'decimal.js';

export type Quote = { name: string; price: string; asOf: Date | number };
export type RejectedQuote<Q extends Quote> = Q & { reason: 'not_a_price' | 'outlier' };

export type ConsensusOptions = {
  /** Fewer sources than this, after outliers are set aside, make no price. From 1. */
  minSources: number;
  /** The largest `(max - min) / median` that still makes a price. From 0. */
  maxSpread: number;
};

/** Both lists are in the order of the sources' names; prices of what was kept are plain decimals. */
type Quotes<Q extends Quote> = { kept: Q[]; rejected: RejectedQuote<Q>[] };

/** `spread` is (max - min) / median of what was kept, to 8 decimal places; for `confidence` see `consensus`. */
export type Consensus<Q extends Quote> = Quotes<Q> & {
  refused?: undefined;
  price: string;
  spread: number;
  confidence: number;
};
export type ConsensusRefusal<Q extends Quote> = Quotes<Q> &
  (
    | { refused: 'too_few_sources'; minSources: number }
    | { refused: 'spread_too_wide'; spread: number; maxSpread: number }
  );

// Digits from 10^30 down to 10^-90 (the least price with 60 digits) and some for sums, halves and the factors below:
// nothing but a quotient is ever rounded.
const Exact = Decimal.clone({ defaults: true, precision: 130 });
type Price = InstanceType<typeof Exact>;

const DECIMAL = /^\d{1,30}(?:\.\d{1,30})?(?:[eE][+-]?\d{1,2})?$/;
const LEAST_PRICE = new Exact('1e-30');
const GREATEST_PRICE = new Exact('1e30');

// Modified z-score and its threshold: B. Iglewicz and D. C. Hoaglin, "How to Detect and Handle Outliers", ASQC 1993.
const NORMAL_QUARTILE = 0.6745;
const OUTLIER_SCORE = 3.5;
// Sources that agree to the cent have a MAD near 0, and the next honest one would seem infinitely far off. With this
// floor, a tenth of a per cent of the median, nobody within 0.52 % of the median is an outlier.
const LEAST_RELATIVE_MAD = 0.001;
// From this many kept sources on, more of them make the price no more trustworthy.
const ENOUGH_SOURCES = 3;

/**
 * Returns the median price of the quotes without outliers, or why there is none. A quote whose price is not a plain or
 * exponential decimal from 1e-30 to 1e30 is set aside as `not_a_price`.
 *
 * confidence = (kept / quotes) * min(1, kept / 3) * (1 - spread / maxSpread / 2), to 4 decimal places: 1 when three
 * sources or more all say the same, half of that at the widest spread allowed, a third for a single source.
 *
 * Throws RangeError for options outside their ranges and for two quotes of one name (one source counted twice).
 */
export function consensus<Q extends Quote>(
  quotes: readonly Q[],
  { minSources, maxSpread }: ConsensusOptions,
): Consensus<Q> | ConsensusRefusal<Q> {
  if (!(Number.isInteger(minSources) && minSources >= 1))
    throw new RangeError('minSources must be a whole number from 1');
  if (!(maxSpread >= 0 && Number.isFinite(maxSpread)))
    throw new RangeError('maxSpread must be finite and not negative');
  if (new Set(quotes.map(({ name }) => name)).size < quotes.length) throw new RangeError('each source may quote once');

  const { kept, prices, rejected } = setOutliersAside(quotes);
  if (kept.length < minSources) return { refused: 'too_few_sources', minSources, kept, rejected };

  const price = median(prices);
  const exactSpread = Exact.max(...prices)
    .minus(Exact.min(...prices))
    .div(price);
  const spread = exactSpread.toDecimalPlaces(8).toNumber();
  if (exactSpread.gt(maxSpread)) return { refused: 'spread_too_wide', spread, maxSpread, kept, rejected };

  const agreement = maxSpread === 0 ? 1 : 1 - exactSpread.div(maxSpread).toNumber() / 2;
  const confidence = (kept.length / quotes.length) * Math.min(1, kept.length / ENOUGH_SOURCES) * agreement;
  return { price: price.toFixed(), spread, confidence: Math.round(confidence * 1e4) / 1e4, kept, rejected };
}

function setOutliersAside<Q extends Quote>(quotes: readonly Q[]): Quotes<Q> & { prices: Price[] } {
  const rejected: RejectedQuote<Q>[] = [];
  const priced: { quote: Q; price: Price }[] = [];
  for (const quote of quotes.toSorted((a, b) => (a.name < b.name ? -1 : 1))) {
    const price = readPrice(quote.price);
    if (price === null) rejected.push({ ...quote, reason: 'not_a_price' });
    else priced.push({ quote: { ...quote, price: price.toFixed() }, price });
  }
  const kept: Q[] = [];
  const prices: Price[] = [];
  if (priced.length === 0) return { kept, prices, rejected };

  const middle = median(priced.map(({ price }) => price));
  const deviations = priced.map(({ price }) => price.minus(middle).abs());
  const scale = Exact.max(median(deviations), middle.times(LEAST_RELATIVE_MAD));
  for (const { quote, price } of priced) {
    if (price.minus(middle).abs().times(NORMAL_QUARTILE).gt(scale.times(OUTLIER_SCORE))) {
      rejected.push({ ...quote, reason: 'outlier' });
    } else {
      kept.push(quote);
      prices.push(price);
    }
  }
  return { kept, prices, rejected: rejected.sort((a, b) => (a.name < b.name ? -1 : 1)) };
}

function readPrice(text: string): Price | null {
  if (!DECIMAL.test(text)) return null;
  const price = new Exact(text);
  return price.gte(LEAST_PRICE) && price.lte(GREATEST_PRICE) ? price : null;
}

/** Returns the middle value, or the mean of the two in the middle. There must be one value at least. */
function median(values: readonly Price[]): Price {
  const sorted = values.toSorted((a, b) => a.cmp(b));
  const low = sorted[(sorted.length - 1) >> 1];
  const high = sorted[sorted.length >> 1];
  if (low === undefined || high === undefined) throw new RangeError('no values');
  return low.plus(high).div(2);
}
