import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Decimal } from 'decimal.js';
import fc from 'fast-check';
import { type Consensus, type ConsensusOptions, consensus, type Quote } from './consensus.ts';

const OPTIONS: ConsensusOptions = { minSources: 2, maxSpread: 0.05 };
const ANY: ConsensusOptions = { minSources: 1, maxSpread: 1e9 };
const Exact = Decimal.clone({ defaults: true, precision: 130 });

const quotes = (...prices: string[]): Quote[] => prices.map((price, i) => ({ name: `s${i}`, price, asOf: 1_000 + i }));
const names = (list: readonly Quote[]) => list.map(({ name }) => name);

function agreed(list: readonly Quote[], options = OPTIONS): Consensus<Quote> {
  const result = consensus(list, options);
  assert.ok(result.refused === undefined, `refused: ${result.refused}`);
  return result;
}

/** Prices from 1e-12 to 9.99e6, within a factor of each other that the test chooses. */
const scale = fc.integer({ min: -12, max: 6 }).map((exponent) => new Exact(10).pow(exponent));
const digits = (spread: number) => fc.integer({ min: 1_000_000, max: 1_000_000 + Math.round(1_000_000 * spread) });
const pricesWithin = (spread: number, constraints: { minLength: number; maxLength: number }) =>
  fc
    .tuple(scale, fc.array(digits(spread), constraints))
    .map(([unit, list]) => list.map((n) => unit.times(n).div(1e6).toFixed()));

test('the median of agreeing sources, odd and even, exact to the last digit', () => {
  assert.deepEqual(agreed(quotes('100.1', '100.3', '100.2')), {
    price: '100.2',
    spread: 0.00199601,
    confidence: 0.98,
    kept: quotes('100.1', '100.3', '100.2'),
    rejected: [],
  });
  assert.equal(agreed(quotes('0.1', '0.3'), ANY).price, '0.2');
  assert.equal(
    agreed(quotes('123456.123456789012345678', '123456.123456789012345679')).price,
    '123456.1234567890123456785',
  );
});

test('prices are plain decimals without noise, from the smallest token to the largest coin', () => {
  const cases = {
    '0.000000000001': '0.000000000001',
    '1e-12': '0.000000000001',
    '1.50e6': '1500000',
    '1000000.000': '1000000',
    '007.10': '7.1',
  };
  for (const [given, expected] of Object.entries(cases)) {
    const result = agreed(quotes(given, given));
    assert.equal(result.price, expected);
    assert.deepEqual(result.kept, quotes(expected, expected));
  }
});

test('what is not a price is set aside and named', () => {
  const bad = [
    '',
    '0',
    '-1',
    '+1',
    'NaN',
    'Infinity',
    '0x10',
    '1,5',
    ' 1',
    '1.',
    '.5',
    '1e99',
    '1e-31',
    '9'.repeat(31),
  ];
  const result = agreed([
    ...quotes('1', '1', '1'),
    ...bad.map((price, i) => ({ name: `t${String(i).padStart(2, '0')}`, price, asOf: 0 })),
  ]);
  assert.equal(result.price, '1');
  assert.deepEqual(
    result.rejected.map(({ price, reason }) => ({ price, reason })),
    bad.map((price) => ({ price, reason: 'not_a_price' })),
  );
});

test('a wild source is set aside, an honest one beside identical prices is not', () => {
  const wild = agreed(quotes('100', '100', '100.1', '250'));
  assert.deepEqual(
    [wild.price, names(wild.kept), wild.rejected.map(({ name, reason }) => [name, reason])],
    ['100', ['s0', 's1', 's2'], [['s3', 'outlier']]],
  );
  const identical = agreed(quotes('100', '100', '100', '100.5'));
  assert.deepEqual([identical.price, identical.kept.length], ['100', 4]);
  assert.equal(agreed(quotes('100', '100', '100', '100.53')).kept.length, 3);
});

test('the modified z-score decides, not the floor, where sources differ more', () => {
  // The median is 100 and the median deviation 2, so the border lies 3.5 * 2 / 0.6745 = 10.378 away.
  const five = ['97', '98', '99', '100', '101'];
  assert.equal(agreed(quotes(...five, '102', '110.37'), ANY).kept.length, 7);
  assert.equal(agreed(quotes(...five, '102', '110.38'), ANY).rejected.length, 1);
});

test('refusals say what was missing', () => {
  assert.deepEqual(consensus([], OPTIONS), { refused: 'too_few_sources', minSources: 2, kept: [], rejected: [] });
  const lonely = consensus(quotes('1', 'n/a'), OPTIONS);
  assert.equal(lonely.refused, 'too_few_sources');
  assert.deepEqual([names(lonely.kept), names(lonely.rejected)], [['s0'], ['s1']]);
  assert.deepEqual(consensus(quotes('100', '110'), OPTIONS), {
    refused: 'spread_too_wide',
    spread: 0.0952381,
    maxSpread: 0.05,
    kept: quotes('100', '110'),
    rejected: [],
  });
});

test('the limits are inclusive: exactly enough sources, exactly the widest spread', () => {
  assert.equal(agreed(quotes('97.5', '102.5')).spread, 0.05);
  assert.equal(consensus(quotes('97.5', '102.5000000000000000001'), OPTIONS).refused, 'spread_too_wide');
  assert.equal(agreed(quotes('5'), { minSources: 1, maxSpread: 0 }).price, '5');
});

test('confidence follows its formula', () => {
  assert.equal(agreed(quotes('5', '5', '5')).confidence, 1);
  assert.equal(agreed(quotes('5', '5', '5', '5', '5')).confidence, 1);
  assert.equal(agreed(quotes('5', '5', '5', '9')).confidence, 0.75);
  assert.equal(agreed(quotes('5', '5')).confidence, 0.6667);
  assert.equal(agreed(quotes('5'), ANY).confidence, 0.3333);
  assert.equal(agreed(quotes('97.5', '100', '102.5')).confidence, 0.5);
});

test('the order of the quotes changes nothing', (t) => {
  const numRuns = 2_000;
  const shuffled = pricesWithin(0.5, { minLength: 1, maxLength: 9 }).chain((prices) => {
    const list = quotes(...prices);
    return fc.tuple(fc.constant(list), fc.shuffledSubarray(list, { minLength: list.length }));
  });
  fc.assert(
    fc.property(shuffled, ([list, other]) => {
      assert.deepEqual(
        consensus(other, { minSources: 2, maxSpread: 0.2 }),
        consensus(list, { minSources: 2, maxSpread: 0.2 }),
      );
    }),
    { numRuns },
  );
  t.diagnostic(`${numRuns} cases`);
});

test('the price lies among the kept, most are kept, and the figures are what they are called', (t) => {
  const numRuns = 2_000;
  fc.assert(
    fc.property(pricesWithin(3, { minLength: 1, maxLength: 9 }), (prices) => {
      const { price, spread, confidence, kept, rejected } = agreed(quotes(...prices), ANY);
      const sorted = kept.map((quote) => new Exact(quote.price)).sort((a, b) => a.cmp(b));
      const [min, max] = [Exact.min(...sorted), Exact.max(...sorted)];
      assert.ok(min.lte(price) && max.gte(price));
      assert.match(price, /^(?:0|[1-9]\d*)(?:\.\d*[1-9])?$/);
      assert.equal(kept.filter((quote) => new Exact(quote.price).lte(price)).length * 2 >= kept.length, true);
      assert.equal(kept.filter((quote) => new Exact(quote.price).gte(price)).length * 2 >= kept.length, true);
      assert.equal(spread, max.minus(min).div(price).toDecimalPlaces(8).toNumber());
      assert.ok(confidence >= 0 && confidence <= 1);
      assert.equal(kept.length + rejected.length, prices.length);
      assert.ok(kept.length * 2 >= prices.length);
    }),
    { numRuns },
  );
  t.diagnostic(`${numRuns} cases`);
});

test('one wild source among three or more that agree never moves the price out of their range', (t) => {
  const numRuns = 3_000;
  const wildness = fc.oneof(
    fc.double({ min: 1e-6, max: 0.9, noNaN: true }),
    fc.double({ min: 1.05, max: 1e6, noNaN: true }),
  );
  fc.assert(
    fc.property(pricesWithin(0.02, { minLength: 3, maxLength: 8 }), wildness, (prices, factor) => {
      const wild = new Exact(prices[0] ?? 0).times(factor).toFixed(24);
      const { price } = agreed(quotes(...prices, wild), ANY);
      assert.ok(
        Exact.min(...prices).lte(price) && Exact.max(...prices).gte(price),
        `${price} from ${prices} and ${wild}`,
      );
    }),
    { numRuns },
  );
  t.diagnostic(`${numRuns} cases`);
});

test('another unit of money changes the price by just that factor', (t) => {
  const numRuns = 2_000;
  const factor = fc
    .tuple(fc.integer({ min: 1, max: 999 }), fc.integer({ min: -9, max: 9 }))
    .map(([n, e]) => new Exact(n).times(new Exact(10).pow(e)));
  fc.assert(
    fc.property(pricesWithin(0.3, { minLength: 1, maxLength: 7 }), factor, (prices, unit) => {
      const before = agreed(quotes(...prices), ANY);
      const after = agreed(quotes(...prices.map((price) => unit.times(price).toFixed())), ANY);
      assert.equal(after.price, unit.times(before.price).toFixed());
      assert.deepEqual([after.spread, after.confidence], [before.spread, before.confidence]);
      assert.deepEqual(names(after.kept), names(before.kept));
    }),
    { numRuns },
  );
  t.diagnostic(`${numRuns} cases`);
});

test('senseless options and a source that counts twice are errors', () => {
  const bad: ConsensusOptions[] = [
    { minSources: 0, maxSpread: 1 },
    { minSources: 1.5, maxSpread: 1 },
    { minSources: 1, maxSpread: -1 },
    { minSources: 1, maxSpread: Number.NaN },
  ];
  for (const options of bad) assert.throws(() => consensus(quotes('1'), options), RangeError);
  assert.throws(() => consensus([...quotes('1'), ...quotes('1')], OPTIONS), RangeError);
});
