import { hash } from 'node:crypto';
import { Decimal } from 'decimal.js';
import type { PriceSource } from './price-source.ts';
import type { Currency } from './symbols.ts';

// A made-up market for demos, tests and test keys: every price follows from symbol, currency and minute alone, so anyone
// can work it out again. Several sources that differ a little let consensus and breakdown do their real work.

/** How long a simulated price stands: as long as a price is cached. */
export const TICK_MS = 60_000;

/** How far apart the drift's fixed points are; between them it runs straight. */
const DRIFT_MS = 3_600_000;

/** Largest share by which a price drifts from its reference, and by which a source differs from the market. */
const DRIFT_SHARE = 0.03;
const SOURCE_SHARE = 0.0005;

/** What the digits of a price are rounded to. */
const SIGNIFICANT_DIGITS = 8;

const names = ['simulated-east', 'simulated-north', 'simulated-west'];

/** Made-up references in USD of the best known; the others get one from their symbol. */
const referenceUsd: Readonly<Record<string, number>> = {
  BTC: 60_000,
  ETH: 3_000,
  BNB: 600,
  SOL: 150,
  XRP: 0.6,
  ADA: 0.5,
  DOGE: 0.15,
  LTC: 80,
  SHIB: 0.00002,
  PEPE: 0.00001,
  USDT: 1,
  USDC: 1,
  DAI: 1,
  PAXG: 2_500,
  WBTC: 60_000,
};

/** Made-up exchange rates: what one US dollar buys. */
const perUsd: Readonly<Record<Currency, number>> = {
  USD: 1,
  EUR: 0.9,
  GBP: 0.8,
  JPY: 150,
  CHF: 0.9,
  CAD: 1.35,
  AUD: 1.5,
};

/** The sources of the simulated market; each knows every asset and currency. Never a stand-in for live sources. */
export function simulatedSources(wallClockMs: () => number): readonly PriceSource[] {
  return names.map((name) => ({
    name,
    knows: () => true,
    async fetchPrice({ symbol }, currency) {
      const tickMs = Math.floor(wallClockMs() / TICK_MS) * TICK_MS;
      const reference = referenceUsd[symbol] ?? 0.5 + 50 * chance(symbol);
      const difference = SOURCE_SHARE * (2 * chance(`${name} ${symbol} ${tickMs}`) - 1);
      const value = reference * perUsd[currency] * (1 + drift(symbol, tickMs)) * (1 + difference);
      return {
        name,
        price: new Decimal(value).toSignificantDigits(SIGNIFICANT_DIGITS).toFixed(),
        asOf: new Date(tickMs),
      };
    },
  }));
}

/** How far the market is from its reference at a moment: -DRIFT_SHARE to DRIFT_SHARE, without jumps. */
function drift(symbol: string, atMs: number): number {
  const step = Math.floor(atMs / DRIFT_MS);
  const from = chance(`${symbol} ${step}`);
  const to = chance(`${symbol} ${step + 1}`);
  return DRIFT_SHARE * (2 * (from + (to - from) * ((atMs - step * DRIFT_MS) / DRIFT_MS)) - 1);
}

/** A number from 0 to below 1 that the text alone decides. */
function chance(text: string): number {
  return hash('sha256', text, 'buffer').readUInt32BE(0) / 2 ** 32;
}
