import type { TransportName } from '../../kernel/context.ts';
import type { Metrics } from '../../platform/metrics.ts';

/** Counts the calls of one operation by their code (`ok` or a public error code). */
export interface CallMeter {
  count(code: string): void;
  /** Counts, and keeps how long it took from `startedAtMs` (monotonic) until now. */
  finish(code: string, startedAtMs: number): void;
}

const SECOND_MS = 1_000;

/** Binds the labels once: looking them up again for every call costs more than counting. Codes are a small fixed set. */
export function createCallMeter(metrics: Metrics, transport: TransportName, operation: string): CallMeter {
  const counters = new Map<string, { inc(): void }>();
  const seconds = metrics.callSeconds.labels(transport, operation);
  function count(code: string): void {
    let counter = counters.get(code);
    if (counter === undefined) {
      counter = metrics.calls.labels(transport, operation, code);
      counters.set(code, counter);
    }
    counter.inc();
  }
  return {
    count,
    finish(code, startedAtMs) {
      count(code);
      seconds.observe((performance.now() - startedAtMs) / SECOND_MS);
    },
  };
}
