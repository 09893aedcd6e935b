import { z } from 'zod';
import { defineOperation } from '../../kernel/operation.ts';
import type { Cache, CacheState } from '../../platform/cache.ts';
import type { Catalog } from './catalog.ts';
import { type ConsensusParts, fetchConsensusPrice } from './consensus-price.ts';
import { currencies } from './symbols.ts';

interface GetPriceParts {
  readonly cache: Cache;
  readonly catalog: Catalog;
  readonly live: ConsensusParts;
  /** What test keys see. */
  readonly simulated: ConsensusParts;
  readonly wallClockMs: () => number;
  readonly signal: AbortSignal;
  readonly observe?: ((state: CacheState) => void) | undefined;
}

/** How long a price is fresh. */
export const PRICE_TTL_MS = 60_000;

/** How long after that it is still given, marked stale with its age, while no fresh one can be had. */
export const PRICE_GRACE_MS = 3_600_000;

/** Longest wait for a fresh price while a stale one is at hand: sources usually answer within this. */
const STALE_WAIT_MS = 500;

const input = z.strictObject({
  symbol: z
    .string()
    .regex(/^[A-Za-z0-9:_.-]{1,32}$/)
    .toUpperCase()
    .describe('Symbol of the asset, such as BTC; list_symbols names them all'),
  currency: z
    .string()
    .regex(/^[A-Za-z]{3}$/)
    .toUpperCase()
    .pipe(z.enum(currencies))
    .default('USD')
    .describe(`Currency of the price: ${currencies.join(', ')}`),
});

const decimal = z.string().describe('Decimal number');

/** Our own `toISOString`. Named, not checked: zod's pattern for it would more than double the cost of shaping an answer. */
const time = z.string().meta({ format: 'date-time' });

const output = z.object({
  symbol: z.string(),
  currency: z.enum(currencies),
  price: decimal.describe('Median of the sources, a decimal number'),
  asOf: time.meta({ description: 'The oldest time among the sources' }),
  ts: z.int().describe('When this was answered, Unix milliseconds'),
  sources: z.array(z.object({ name: z.string(), price: decimal, asOf: time })),
  spread: z.number().min(0).describe('(max - min) / median of the sources'),
  confidence: z.number().min(0).max(1),
  cache: z
    .enum(['hit', 'stale', 'miss'])
    .describe('stale: older than a minute, because the sources could not answer in time'),
  ageSeconds: z.int().min(0).describe('Seconds since the price was fetched'),
});

/** The price that several sources agree on, at most a minute old unless it is marked stale. */
export const getPrice = (parts: GetPriceParts) =>
  defineOperation({
    name: 'market.get_price',
    names: { tool: 'get_price' },
    route: { method: 'POST', path: '/tools/get_price' },
    summary: 'The current price of a crypto asset that several sources agree on, with their breakdown',
    permission: 'tools:read',
    audience: 'tenant',
    transports: ['http', 'mcp', 'cli'],
    cost: 1,
    input,
    output,
    answer: 'json',
    volatile: ['ts', 'cache', 'ageSeconds'],
    idempotent: true,
    readOnly: true,
    example: { symbol: 'BTC', currency: 'USD' },
    precheck({ symbol, currency }) {
      parts.catalog.find(symbol, currency);
    },
    meterSymbol: ({ symbol }) => symbol,
    async run(context, { symbol, currency }) {
      const asset = parts.catalog.find(symbol, currency);
      const isTest = context.principal.key?.environment === 'test';
      const { value, state } = await parts.cache.getOrSet(`${isTest ? 'test-price' : 'price'}:${symbol}:${currency}`, {
        ttlMs: PRICE_TTL_MS,
        graceMs: PRICE_GRACE_MS,
        timeoutMs: STALE_WAIT_MS,
        factory: (signal) =>
          fetchConsensusPrice(
            isTest ? parts.simulated : parts.live,
            asset,
            currency,
            AbortSignal.any([signal, parts.signal]),
          ),
      });
      parts.observe?.(state);
      const ts = parts.wallClockMs();
      return {
        symbol,
        currency,
        price: value.price,
        asOf: value.asOf,
        ts,
        sources: [...value.sources],
        spread: value.spread,
        confidence: value.confidence,
        cache: state,
        ageSeconds: Math.max(0, Math.floor((ts - value.fetchedAtMs) / 1_000)),
      };
    },
  });
