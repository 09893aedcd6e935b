import {
  BrokenCircuitError,
  CircuitState,
  ConsecutiveBreaker,
  circuitBreaker,
  handleWhen,
  TaskCancelledError,
  TimeoutStrategy,
  timeout,
  wrap,
} from 'cockatiel';
import { type FailureReason, type PriceSource, SourceError } from './price-source.ts';

interface GuardOptions {
  readonly timeoutMs?: number | undefined;
  readonly failuresToOpen?: number | undefined;
  readonly halfOpenAfterMs?: number | undefined;
  /** Told of every call's outcome. */
  readonly observe?: ((source: string, outcome: FailureReason | 'ok') => void) | undefined;
}

/** Providers answer within a second; a caller who finds nothing cached waits at most this long for the slowest. */
const SOURCE_TIMEOUT_MS = 2_500;

/** One bad answer is noise, this many in a row are an outage. */
export const FAILURES_TO_OPEN = 5;

/** Pause before the next single attempt: long enough to spare a provider that limits us, short against the grace of an hour. */
export const HALF_OPEN_AFTER_MS = 30_000;

/**
 * The same source, given up after a timeout and left alone for a while after consecutive failures. Never retries: the next
 * caller's question is the retry. While the one attempt after a pause is under way, everyone else is refused at once.
 */
export function guardSource(source: PriceSource, options: GuardOptions = {}): PriceSource {
  const breaker = circuitBreaker(handleWhen(isOutage), {
    halfOpenAfter: options.halfOpenAfterMs ?? HALF_OPEN_AFTER_MS,
    breaker: new ConsecutiveBreaker(options.failuresToOpen ?? FAILURES_TO_OPEN),
  });
  // Aggressive: a source that ignores its signal is given up all the same.
  const policy = wrap(breaker, timeout(options.timeoutMs ?? SOURCE_TIMEOUT_MS, TimeoutStrategy.Aggressive));
  return {
    name: source.name,
    knows: (asset, currency) => source.knows(asset, currency),
    async fetchPrice(asset, currency, signal) {
      try {
        if (breaker.state === CircuitState.HalfOpen) throw new BrokenCircuitError();
        const quote = await policy.execute((context) => source.fetchPrice(asset, currency, context.signal), signal);
        options.observe?.(source.name, 'ok');
        return quote;
      } catch (thrown) {
        const error = toSourceError(source.name, thrown);
        options.observe?.(source.name, error.reason);
        throw error;
      }
    },
  };
}

/** Not to list one asset says nothing about the others. */
function isOutage(error: unknown): boolean {
  return !(error instanceof SourceError && error.reason === 'not_listed');
}

function toSourceError(source: string, thrown: unknown): SourceError {
  if (thrown instanceof SourceError) return thrown;
  if (thrown instanceof BrokenCircuitError) return new SourceError(source, 'breaker_open');
  if (thrown instanceof TaskCancelledError) return new SourceError(source, 'timeout');
  return new SourceError(source, 'unreachable', undefined, thrown);
}
