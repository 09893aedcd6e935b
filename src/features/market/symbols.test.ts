import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type AssetIds, assets, currencies } from './symbols.ts';

test('symbols are sorted, unique and of the form that callers may send', () => {
  const symbols = assets.map(({ symbol }) => symbol);
  assert.ok(symbols.length >= 60);
  assert.deepEqual(symbols, [...new Set(symbols)].sort());
  for (const symbol of symbols) assert.match(symbol, /^[A-Z0-9]{2,10}$/);
  assert.equal(new Set(currencies).size, currencies.length);
});

test('no source has one id for two assets, and every id is of the form that source uses', () => {
  const forms: Record<keyof AssetIds, RegExp> = {
    coingecko: /^[a-z0-9]+(-[a-z0-9]+)*$/,
    coinpaprika: /^[a-z0-9]+(-[a-z0-9]+)+$/,
    coinmarketcap: /^[1-9]\d{0,5}$/,
    cryptocompare: /^[A-Z0-9]+$/,
    kraken: /^[A-Z0-9]+$/,
    coinbase: /^[A-Z0-9]+$/,
  };
  for (const [source, form] of Object.entries(forms) as [keyof AssetIds, RegExp][]) {
    const ids = assets.flatMap(({ ids }) => (ids[source] === null ? [] : [String(ids[source])]));
    assert.equal(new Set(ids).size, ids.length, source);
    for (const id of ids) assert.match(id, form, source);
  }
});

test('the two that Kraken spells its own way are spelt so, and every asset has two sources at least', () => {
  const kraken = new Map(assets.map(({ symbol, ids }) => [symbol, ids.kraken]));
  assert.deepEqual([kraken.get('BTC'), kraken.get('DOGE')], ['XBT', 'XDG']);
  for (const { symbol, ids } of assets) {
    assert.ok(Object.values(ids).filter((id) => id !== null).length >= 2, symbol);
  }
});
