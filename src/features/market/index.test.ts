// The whole feature over a made-up internet: answers written by hand in the shapes that the providers document.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { z } from 'zod';
import type { Context, KeyIdentity } from '../../kernel/context.ts';
import { AppError } from '../../kernel/errors.ts';
import { inputSchema, type Operation, outputSchema, toolName } from '../../kernel/operation.ts';
import { FAILURE_TTL_MS, openCache } from '../../platform/cache.ts';
import { PRICE_GRACE_MS, PRICE_TTL_MS } from './get-price.ts';
import { FAILURES_TO_OPEN } from './guarded-source.ts';
import { createMarket, type MarketParts, sourceNames } from './index.ts';

const START = Date.UTC(2026, 0, 2, 3, 4, 5);

interface Answer {
  readonly price: string;
  readonly cache: string;
  readonly ageSeconds: number;
  readonly ts: number;
  readonly sources: readonly { readonly name: string; readonly price: string }[];
  readonly [field: string]: unknown;
}

interface Page {
  readonly items: readonly { readonly symbol: string; readonly name: string; readonly currencies: readonly string[] }[];
  readonly nextCursor: string | null;
}

/** Four live sources whose prices the test sets (null: down), a clock that it moves, and a count of the calls upstream. */
function setUp(parts: Partial<MarketParts> = {}) {
  const clock = { now: START };
  const wallClockMs = () => clock.now;
  const prices: Record<string, string | null> = {
    coingecko: '100',
    coinpaprika: '100.1',
    kraken: '100.2',
    coinbase: '100.3',
  };
  const calls = new Map<string, number>();
  const observed: string[] = [];
  const answers: Record<string, (price: string) => unknown> = {
    coingecko: (price) => ({ bitcoin: { usd: Number(price), last_updated_at: Math.floor(clock.now / 1_000) } }),
    coinpaprika: (price) => ({
      last_updated: new Date(clock.now).toISOString(),
      quotes: { USD: { price: Number(price) } },
    }),
    kraken: (price) => ({ error: [], result: { XXBTZUSD: { c: [price, '1'] } } }),
    coinbase: (price) => ({ price, time: new Date(clock.now).toISOString() }),
  };
  const internet = (async (url: string) => {
    const name = new URL(url).hostname.split('.')[0] ?? '';
    calls.set(name, (calls.get(name) ?? 0) + 1);
    const price = prices[name] ?? null;
    return price === null ? new Response('down', { status: 503 }) : Response.json(answers[name]?.(price));
  }) as typeof fetch;
  const names = ['coingecko', 'coinpaprika', 'kraken', 'coinbase'] as const;
  const market = createMarket({
    sources: names,
    apiKeys: {},
    cache: openCache({ maxEntries: 1_000, monotonicMs: wallClockMs }),
    wallClockMs,
    baseUrls: Object.fromEntries(names.map((name) => [name, `http://${name}.test`])),
    fetch: internet,
    observe: {
      sourceCall: (source, outcome) => observed.push(`${source} ${outcome}`),
      price: (state) => observed.push(state),
    },
    ...parts,
  });
  const [getPrice, listSymbols] = market.operations as [Operation, Operation];
  const run = async (operation: Operation, input: unknown, environment: 'live' | 'test' = 'live') => {
    const parsed = operation.input.parse(input);
    operation.precheck?.(parsed);
    return operation.output.parse(await operation.run(contextOf(environment), parsed));
  };
  return {
    clock,
    prices,
    calls,
    observed,
    market,
    getPrice,
    listSymbols,
    price: async (input: unknown, environment?: 'live' | 'test') => (await run(getPrice, input, environment)) as Answer,
    list: async (input: unknown) => (await run(listSymbols, input)) as Page,
  };
}

/** As much of a context as a market operation may look at: who calls. */
function contextOf(environment: 'live' | 'test'): Context {
  return { principal: { key: { environment } as KeyIdentity } } as Context;
}

async function refusal(answer: Promise<unknown>): Promise<AppError> {
  const error = await answer.then(
    (value) => assert.fail(`was answered ${JSON.stringify(value)}`),
    (thrown: unknown) => thrown,
  );
  assert.ok(error instanceof AppError, String(error));
  return error;
}

const upstreamCalls = (calls: ReadonlyMap<string, number>) =>
  [...calls.values()].reduce((sum, count) => sum + count, 0);

test('a price, its breakdown, and the second answer from the cache with its age', async () => {
  const { price, clock, calls, observed } = setUp();
  assert.deepEqual(await price({ symbol: 'btc' }), {
    symbol: 'BTC',
    currency: 'USD',
    price: '100.15',
    asOf: '2026-01-02T03:04:05.000Z',
    ts: START,
    sources: [
      { name: 'coinbase', price: '100.3', asOf: '2026-01-02T03:04:05.000Z' },
      { name: 'coingecko', price: '100', asOf: '2026-01-02T03:04:05.000Z' },
      { name: 'coinpaprika', price: '100.1', asOf: '2026-01-02T03:04:05.000Z' },
      { name: 'kraken', price: '100.2', asOf: '2026-01-02T03:04:05.000Z' },
    ],
    spread: 0.00299551,
    confidence: 0.97,
    cache: 'miss',
    ageSeconds: 0,
  });
  clock.now += 12_900;
  const { cache, ageSeconds, ts } = await price({ symbol: 'BTC', currency: 'usd' });
  assert.deepEqual({ cache, ageSeconds, ts }, { cache: 'hit', ageSeconds: 12, ts: clock.now });
  assert.equal(upstreamCalls(calls), 4);
  assert.deepEqual(observed.slice(-2), ['miss', 'hit']);
  assert.deepEqual(observed.filter((line) => line.endsWith(' ok')).sort(), [
    'coinbase ok',
    'coingecko ok',
    'coinpaprika ok',
    'kraken ok',
  ]);
});

test('a thousand callers at once are one call of each source', async () => {
  const { price, calls } = setUp();
  const answers = await Promise.all(Array.from({ length: 1_000 }, () => price({ symbol: 'BTC' })));
  assert.ok(answers.every((answer) => answer.price === '100.15'));
  assert.deepEqual([...calls.values()], [1, 1, 1, 1]);
});

test('all sources down: stale with its true age for the grace, then an error that names them; breakers spare them', async () => {
  const { price, prices, clock, calls } = setUp();
  await price({ symbol: 'BTC' });
  for (const name of Object.keys(prices)) prices[name] = null;

  clock.now += PRICE_TTL_MS;
  const stale = await price({ symbol: 'BTC' });
  assert.deepEqual([stale.cache, stale.ageSeconds, stale.price], ['stale', 60, '100.15']);
  for (let i = 0; i < 200; i++) assert.equal((await price({ symbol: 'BTC' })).cache, 'stale');
  assert.deepEqual([...calls.values()], [2, 2, 2, 2], 'the failure is remembered for a moment');

  for (let i = 0; i < 20; i++) {
    clock.now += FAILURE_TTL_MS;
    assert.equal((await price({ symbol: 'BTC' })).cache, 'stale');
  }
  const opened = 1 + FAILURES_TO_OPEN;
  assert.deepEqual([...calls.values()], [opened, opened, opened, opened], 'the breakers are open');

  clock.now = START + PRICE_TTL_MS + PRICE_GRACE_MS - 1;
  assert.deepEqual((await price({ symbol: 'BTC' })).ageSeconds, (PRICE_TTL_MS + PRICE_GRACE_MS) / 1_000 - 1);
  clock.now += 1;
  const error = await refusal(price({ symbol: 'BTC' }));
  assert.equal(error.code, 'upstream_unavailable');
  assert.deepEqual(error.details['sources'], [
    { name: 'coinbase', reason: 'breaker_open' },
    { name: 'coingecko', reason: 'breaker_open' },
    { name: 'coinpaprika', reason: 'breaker_open' },
    { name: 'kraken', reason: 'breaker_open' },
  ]);
  assert.ok(!JSON.stringify([error.message, error.details]).includes('http'));
});

test('a source down costs nothing but itself, and a wild one is outvoted', async () => {
  const { price, prices } = setUp();
  prices['coingecko'] = null;
  prices['kraken'] = '5000';
  const answer = await price({ symbol: 'BTC' });
  assert.deepEqual(
    answer.sources.map(({ name }) => name),
    ['coinbase', 'coinpaprika'],
  );
  assert.equal(answer.price, '100.2');
});

test('the outage of a cold symbol asks each source once a moment, however many callers there are', async () => {
  const { price, prices, calls } = setUp();
  for (const name of Object.keys(prices)) prices[name] = null;
  const answers = await Promise.allSettled(Array.from({ length: 500 }, () => price({ symbol: 'BTC' })));
  assert.ok(answers.every(({ status }) => status === 'rejected'));
  await refusal(price({ symbol: 'BTC' }));
  assert.deepEqual([...calls.values()], [1, 1, 1, 1]);
});

test('a test key sees the simulated market, under its own cache key, and calls nobody', async () => {
  const { price, calls } = setUp();
  const live = await price({ symbol: 'BTC' });
  const before = upstreamCalls(calls);
  const simulated = await price({ symbol: 'BTC' }, 'test');
  assert.ok(simulated.sources.every(({ name }) => name.startsWith('simulated-')));
  assert.equal(simulated.cache, 'miss');
  assert.notEqual(simulated.price, live.price);
  assert.equal((await price({ symbol: 'BTC' }, 'test')).cache, 'hit');
  assert.equal((await price({ symbol: 'BTC' })).price, live.price);
  assert.equal(upstreamCalls(calls), before);
});

test('the simulated market alone serves live keys as well, the same on every start', async () => {
  const [one, two] = [setUp({ sources: ['simulated'] }), setUp({ sources: ['simulated'] })];
  assert.deepEqual(
    await one.price({ symbol: 'ETH', currency: 'GBP' }),
    await two.price({ symbol: 'ETH', currency: 'GBP' }),
  );
});

test('an unknown symbol is refused before anything is charged, with the nearest ones', async () => {
  const { getPrice, calls } = setUp();
  const precheck = (symbol: string) => async () => getPrice.precheck?.(getPrice.input.parse({ symbol }));
  const error = await refusal(precheck('btcc')());
  assert.equal(error.code, 'unknown_symbol');
  assert.deepEqual(error.details, {
    symbol: 'BTCC',
    nearest: ['BTC', ...(error.details['nearest'] as string[]).slice(1)],
  });
  assert.match(error.message, /BTCC is not known; the nearest are BTC/);
  for (const symbol of ['__PROTO__', 'CONSTRUCTOR', 'X:Y-Z.W_1']) {
    assert.equal((await refusal(precheck(symbol)())).code, 'unknown_symbol');
  }
  assert.equal(upstreamCalls(calls), 0);
});

test('input of any other form does not fit the schema', () => {
  const { getPrice } = setUp();
  for (const input of [
    {},
    null,
    'BTC',
    { symbol: '' },
    { symbol: 'B'.repeat(33) },
    { symbol: 'BTC ' },
    { symbol: 'ＢＴＣ' },
    { symbol: ['BTC'] },
    { symbol: 'BTC', currency: 'XYZ' },
    { symbol: 'BTC', currency: 'US' },
    { symbol: 'BTC', extra: 1 },
  ]) {
    assert.equal(getPrice.input.safeParse(input).success, false, JSON.stringify(input));
  }
});

test('an asset that too few sources price in a currency is refused with those it is priced in', async () => {
  const { price } = setUp({ sources: ['kraken', 'coinbase'] });
  const error = await refusal(price({ symbol: 'BTC', currency: 'JPY' }));
  assert.equal(error.code, 'invalid_input');
  assert.deepEqual(error.details['currencies'], ['USD', 'EUR', 'GBP']);
  assert.equal((await refusal(price({ symbol: 'BNB' }))).code, 'unknown_symbol');
});

test('list_symbols names what can be asked, filtered, and page by page', async () => {
  const { list } = setUp();
  const all = await list({});
  assert.ok(all.items.length >= 60 && all.nextCursor === null);
  assert.deepEqual(
    (await list({ query: 'bitc' })).items.map(({ symbol }) => symbol),
    ['BCH', 'BTC', 'WBTC'],
  );
  assert.deepEqual(await list({ query: 'no such' }), { items: [], nextCursor: null });

  const paged: Page['items'][number][] = [];
  let cursor: string | null = null;
  for (let pages = 0; pages < 100; pages++) {
    const page: Page = await list({ limit: 7, ...(cursor === null ? {} : { cursor }) });
    paged.push(...page.items);
    cursor = page.nextCursor;
    if (cursor === null) break;
  }
  assert.deepEqual(paged, all.items);
  for (const cursor of ['x', 'WyIxIiwyXQ']) assert.equal((await refusal(list({ cursor }))).code, 'invalid_input');
  const { list: few } = setUp({ sources: ['kraken', 'coinbase'] });
  assert.ok((await few({})).items.every(({ symbol, currencies }) => symbol !== 'BNB' && currencies.length === 3));
});

test('both operations are what the contract says, and their schemas can be published', () => {
  const { market, getPrice, listSymbols } = setUp();
  assert.deepEqual(market.operations.map(toolName), ['get_price', 'list_symbols']);
  assert.deepEqual([getPrice.route.path, listSymbols.route.path], ['/tools/get_price', '/tools/list_symbols']);
  assert.deepEqual([getPrice.cost, listSymbols.cost], [1, 0]);
  for (const operation of market.operations) {
    assert.ok(operation.input.safeParse(operation.example).success);
    assert.equal(inputSchema(operation)['additionalProperties'], false);
    assert.equal(outputSchema(operation)['type'], 'object');
  }
  const input = z
    .object({ properties: z.record(z.string(), z.record(z.string(), z.unknown())) })
    .parse(inputSchema(getPrice));
  assert.equal(input.properties['symbol']?.['pattern'], '^[A-Za-z0-9:_.-]{1,32}$');
  assert.equal(input.properties['currency']?.['default'], 'USD');
  assert.equal(getPrice.meterSymbol?.({ symbol: 'BTC' }), 'BTC');
});

test('closing the market gives up the calls under way', async () => {
  const asked = Promise.withResolvers<void>();
  const hanging = ((_url: string, { signal }: RequestInit) => {
    asked.resolve();
    return new Promise((_, reject) => signal?.addEventListener('abort', () => reject(signal.reason)));
  }) as typeof fetch;
  const { price, market } = setUp({ fetch: hanging });
  const answer = price({ symbol: 'BTC' });
  await asked.promise;
  market.close();
  const error = await refusal(answer);
  assert.equal(error.code, 'upstream_unavailable');
});

test('settings that cannot work are refused by name, without the key', () => {
  const refused: [Partial<MarketParts>, RegExp][] = [
    [{ sources: [] }, /MARKET_SOURCES is empty; it may name coingecko/],
    [{ sources: ['coingeko'] }, /names coingeko, which is none of coingecko, coinpaprika/],
    [{ sources: ['kraken', 'kraken'] }, /a source twice/],
    [{ sources: ['kraken', 'simulated'] }, /simulated beside live sources/],
    [{ sources: ['coinmarketcap'] }, /needs COINMARKETCAP_API_KEY/],
    [{ sources: ['kraken'], minSources: 2 }, /2 sources must agree, but MARKET_SOURCES names only 1/],
  ];
  for (const [parts, message] of refused) assert.throws(() => setUp(parts), message);
  assert.throws(
    () => setUp({ sources: ['coinmarketcap'], apiKeys: { coinmarketcap: 'secret\n' } }),
    (error: Error) => /API key of coinmarketcap/.test(error.message) && !error.message.includes('secret'),
  );
  const keys = { coinmarketcap: 'a', cryptocompare: 'b' };
  for (const name of sourceNames) assert.equal(setUp({ sources: [name], apiKeys: keys }).market.name, 'market');
});
