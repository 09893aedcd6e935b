import { AppError } from '../../kernel/errors.ts';
import { type ConsensusRefusal, consensus } from '../../lib/consensus.ts';
import { FAILURE_TTL_MS } from '../../platform/cache.ts';
import { type FailureReason, type PriceSource, type Quote, SourceError } from './price-source.ts';
import type { Asset, Currency } from './symbols.ts';

/** A price several sources agree on: plain data, as it is cached. */
interface ConsensusPrice {
  readonly symbol: string;
  readonly currency: Currency;
  /** Median of the sources, a decimal. */
  readonly price: string;
  /** The oldest time among the sources. */
  readonly asOf: string;
  readonly sources: readonly { readonly name: string; readonly price: string; readonly asOf: string }[];
  /** (max - min) / median of the sources. */
  readonly spread: number;
  readonly confidence: number;
  readonly fetchedAtMs: number;
}

export interface ConsensusParts {
  readonly sources: readonly PriceSource[];
  readonly minSources: number;
  readonly maxSpread: number;
  readonly wallClockMs: () => number;
}

/** Averages on free plans are some minutes old; the last trade of a book that trades more rarely than this is no price. */
export const QUOTE_AGE_MAX_MS = 15 * 60_000;

/** How far a source's clock may be ahead of ours before its time means nothing. */
export const QUOTE_AHEAD_MAX_MS = 2 * 60_000;

/**
 * Asks every source that knows the asset at once, waits until each has answered or was given up (`guardSource` bounds that),
 * and returns what they agree on; outliers are neither counted nor listed. Throws AppError `upstream_unavailable` with the
 * reason per source when too few are left or they differ too widely.
 */
export async function fetchConsensusPrice(
  parts: ConsensusParts,
  asset: Asset,
  currency: Currency,
  signal: AbortSignal,
): Promise<ConsensusPrice> {
  const asked = parts.sources.filter((source) => source.knows(asset, currency));
  const answers = await Promise.allSettled(asked.map((source) => source.fetchPrice(asset, currency, signal)));
  const now = parts.wallClockMs();
  const quotes: Quote[] = [];
  const failures: SourceError[] = [];
  for (const [index, answer] of answers.entries()) {
    if (answer.status === 'rejected') failures.push(asSourceError(asked[index]?.name ?? '', answer.reason));
    else if (isCurrent(answer.value.asOf, now)) quotes.push(answer.value);
    else failures.push(new SourceError(answer.value.name, 'outdated', `as of ${answer.value.asOf.toISOString()}`));
  }
  const agreed = consensus(quotes, parts);
  if (agreed.refused !== undefined) throw upstreamUnavailable(asset, currency, agreed, failures);
  return {
    symbol: asset.symbol,
    currency,
    price: agreed.price,
    asOf: new Date(Math.min(...agreed.kept.map((quote) => quote.asOf.getTime()))).toISOString(),
    sources: agreed.kept.map(({ name, price, asOf }) => ({ name, price, asOf: asOf.toISOString() })),
    spread: agreed.spread,
    confidence: agreed.confidence,
    fetchedAtMs: now,
  };
}

function isCurrent(asOf: Date, now: number): boolean {
  const ageMs = now - asOf.getTime();
  return ageMs <= QUOTE_AGE_MAX_MS && ageMs >= -QUOTE_AHEAD_MAX_MS;
}

function asSourceError(source: string, thrown: unknown): SourceError {
  return thrown instanceof SourceError ? thrown : new SourceError(source, 'unreachable', undefined, thrown);
}

function upstreamUnavailable(
  asset: Asset,
  currency: Currency,
  refusal: ConsensusRefusal<Quote>,
  failures: readonly SourceError[],
): AppError {
  const sources: { name: string; reason: FailureReason | 'ok' }[] = [
    ...failures.map(({ source, reason }) => ({ name: source, reason })),
    ...refusal.rejected.map(({ name, reason }) => ({ name, reason })),
    ...refusal.kept.map(({ name }) => ({ name, reason: 'ok' as const })),
  ].sort((a, b) => (a.name < b.name ? -1 : 1));
  const pair = `${asset.symbol} in ${currency}`;
  const message =
    refusal.refused === 'spread_too_wide'
      ? `The sources differ by ${percent(refusal.spread)} on ${pair}, more than the ${percent(refusal.maxSpread)} allowed.`
      : `${refusal.kept.length} of ${sources.length} sources gave a usable price of ${pair}; ${refusal.minSources} are needed.`;
  return new AppError('upstream_unavailable', message, {
    details: { symbol: asset.symbol, currency, sources, retryAfterSeconds: Math.ceil(FAILURE_TTL_MS / 1_000) },
    cause: new AggregateError(failures, 'price sources failed'),
  });
}

function percent(share: number): string {
  return `${(share * 100).toFixed(2)} %`;
}
