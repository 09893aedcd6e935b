import type { Asset, Currency } from './symbols.ts';

/** One source's price of one asset. */
export interface Quote {
  readonly name: string;
  /** The number as the source sent it, digit for digit. */
  readonly price: string;
  /** When the source says the price was true. */
  readonly asOf: Date;
}

/** Someone who can be asked for prices. */
export interface PriceSource {
  readonly name: string;
  /** Whether asking makes sense: the source has an id for the asset and quotes in the currency. */
  knows(asset: Asset, currency: Currency): boolean;
  /** Throws SourceError. */
  fetchPrice(asset: Asset, currency: Currency, signal: AbortSignal): Promise<Quote>;
}

/** Why a source gave no usable price; shown to callers. */
export type FailureReason =
  | 'timeout'
  | 'unreachable'
  | 'status'
  | 'too_large'
  | 'schema'
  | 'provider_error'
  | 'not_listed'
  | 'outdated'
  | 'not_a_price'
  | 'outlier'
  | 'breaker_open';

/** A source that gave no usable price. The message names no URL and no key; `cause` is for the log. */
export class SourceError extends Error {
  readonly source: string;
  readonly reason: FailureReason;

  constructor(source: string, reason: FailureReason, detail?: string, cause?: unknown) {
    super(`${source}: ${detail ?? reason}`, cause === undefined ? {} : { cause });
    this.name = 'SourceError';
    this.source = source;
    this.reason = reason;
  }
}

/** What every source over HTTP can be given. */
export interface SourceOptions {
  /** Where its API is, without a slash at the end; tests name a local server. */
  readonly baseUrl?: string | undefined;
  readonly apiKey?: string | undefined;
  readonly fetch?: typeof fetch | undefined;
}
