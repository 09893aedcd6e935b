import assert from 'node:assert/strict';
import { test } from 'node:test';
import { consensus } from '../../lib/consensus.ts';
import { simulatedSources, TICK_MS } from './simulated.ts';
import { type Asset, assets, type Currency, currencies } from './symbols.ts';

const START = Date.UTC(2026, 0, 2);
const signal = new AbortController().signal;

const quotesAt = (nowMs: number, asset: Asset, currency: Currency) =>
  Promise.all(simulatedSources(() => nowMs).map((source) => source.fetchPrice(asset, currency, signal)));

test('a price depends on symbol, currency and minute alone', async () => {
  const bitcoin = assets.find(({ symbol }) => symbol === 'BTC') as Asset;
  const quotes = await quotesAt(START, bitcoin, 'USD');
  assert.deepEqual(quotes, await quotesAt(START + TICK_MS - 1, bitcoin, 'USD'));
  assert.notDeepEqual(quotes, await quotesAt(START + TICK_MS, bitcoin, 'USD'));
  assert.notDeepEqual(quotes, await quotesAt(START, bitcoin, 'EUR'));
  assert.ok(quotes.every(({ asOf }) => asOf.getTime() === START));
  assert.equal(new Set(quotes.map(({ name }) => name)).size, 3);
  // Written down once: a restart, another machine and a later release show the same market.
  assert.deepEqual(
    quotes.map(({ price }) => price),
    ['58697.287', '58687.604', '58657.027'],
  );
});

test('every asset has sources that agree and a price that does not jump, not even on the hour', async () => {
  for (const asset of assets) {
    const currency = currencies[asset.symbol.length % currencies.length] as Currency;
    let before: number | undefined;
    for (let tick = 56; tick < 64; tick++) {
      const agreed = consensus(await quotesAt(START + tick * TICK_MS, asset, currency), {
        minSources: 3,
        maxSpread: 0.002,
      });
      assert.ok(agreed.refused === undefined, `${asset.symbol} ${agreed.refused}`);
      const price = Number(agreed.price);
      if (before !== undefined) assert.ok(Math.abs(price / before - 1) < 0.005, `${asset.symbol} jumps at ${tick}`);
      before = price;
    }
  }
});
