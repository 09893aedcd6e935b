import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AppError } from '../../kernel/errors.ts';
import { fetchConsensusPrice, QUOTE_AGE_MAX_MS, QUOTE_AHEAD_MAX_MS } from './consensus-price.ts';
import { type PriceSource, SourceError } from './price-source.ts';
import { type Asset, assets } from './symbols.ts';

const NOW = Date.UTC(2026, 0, 2, 3, 4, 5);
const asset = assets.find(({ symbol }) => symbol === 'BTC') as Asset;

/** A source that says a price of some age, fails, or does not know the asset. */
function source(name: string, says: string | SourceError | null, ageMs = 0): PriceSource {
  return {
    name,
    knows: () => says !== null,
    async fetchPrice() {
      if (typeof says === 'string') return { name, price: says, asOf: new Date(NOW - ageMs) };
      throw says;
    },
  };
}

const ask = (sources: readonly PriceSource[], minSources = 2) =>
  fetchConsensusPrice(
    { sources, minSources, maxSpread: 0.05, wallClockMs: () => NOW },
    asset,
    'USD',
    new AbortController().signal,
  );

async function refusalOf(answer: Promise<unknown>): Promise<AppError> {
  const error = await answer.then(
    () => assert.fail('was not refused'),
    (thrown: unknown) => thrown,
  );
  assert.ok(error instanceof AppError);
  assert.equal(error.code, 'upstream_unavailable');
  return error;
}

test('the median of those that answered, with their breakdown and the oldest of their times', async () => {
  const price = await ask([
    source('a', '100.0', 30_000),
    source('b', '101', 60_000),
    source('c', '102'),
    source('d', new SourceError('d', 'timeout')),
    source('e', null),
  ]);
  assert.deepEqual(price, {
    symbol: 'BTC',
    currency: 'USD',
    price: '101',
    asOf: '2026-01-02T03:03:05.000Z',
    sources: [
      { name: 'a', price: '100', asOf: '2026-01-02T03:03:35.000Z' },
      { name: 'b', price: '101', asOf: '2026-01-02T03:03:05.000Z' },
      { name: 'c', price: '102', asOf: '2026-01-02T03:04:05.000Z' },
    ],
    spread: 0.01980198,
    confidence: price.confidence,
    fetchedAtMs: NOW,
  });
});

test('one wild source is outvoted and not listed', async () => {
  const price = await ask([source('a', '100'), source('b', '100.1'), source('c', '1'), source('d', '100.2')]);
  assert.equal(price.price, '100.1');
  assert.deepEqual(
    price.sources.map(({ name }) => name),
    ['a', 'b', 'd'],
  );
});

test('a quote too old or from the future counts for nothing', async () => {
  const kept = await ask([
    source('a', '100', QUOTE_AGE_MAX_MS),
    source('b', '100', -QUOTE_AHEAD_MAX_MS),
    source('c', '100.1', QUOTE_AGE_MAX_MS + 1),
    source('d', '100.1', -QUOTE_AHEAD_MAX_MS - 1),
  ]);
  assert.deepEqual(
    kept.sources.map(({ name }) => name),
    ['a', 'b'],
  );
});

test('too few usable answers: who failed and why, never where', async () => {
  const error = await refusalOf(
    ask([
      source('a', '100'),
      source('b', new SourceError('b', 'status', 'status 503')),
      source('c', '100', QUOTE_AGE_MAX_MS + 1),
      source('d', '0'),
      source('e', new SourceError('e', 'breaker_open')),
      source('f', new SourceError('f', 'schema', undefined, new Error('http://secret.example'))),
    ]),
  );
  assert.deepEqual(error.details, {
    symbol: 'BTC',
    currency: 'USD',
    sources: [
      { name: 'a', reason: 'ok' },
      { name: 'b', reason: 'status' },
      { name: 'c', reason: 'outdated' },
      { name: 'd', reason: 'not_a_price' },
      { name: 'e', reason: 'breaker_open' },
      { name: 'f', reason: 'schema' },
    ],
    retryAfterSeconds: 2,
  });
  assert.equal(error.message, '1 of 6 sources gave a usable price of BTC in USD; 2 are needed.');
});

test('sources that contradict each other give no price', async () => {
  const error = await refusalOf(ask([source('a', '100'), source('b', '110')]));
  assert.match(error.message, /differ by 9\.52 % on BTC in USD, more than the 5\.00 % allowed/);
});

test('one source is enough only where the setting says so', async () => {
  assert.equal((await ask([source('a', '100')], 1)).price, '100');
  await refusalOf(ask([source('a', '100')]));
});
