import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';

/** The process's Prometheus metrics, all under the prefix `iora_`. */
export interface Metrics {
  readonly calls: Counter<'transport' | 'operation' | 'code'>;
  readonly callSeconds: Histogram<'transport' | 'operation'>;
  readonly limitDecisions: Counter<'decision' | 'policy'>;
  readonly databaseSeconds: Histogram<'outcome'>;
  readonly keyCache: Counter<'result'>;
  readonly usageRows: Counter<'result'>;
  readonly sourceCalls: Counter<'source' | 'outcome'>;
  readonly priceCache: Counter<'state'>;
  readonly revocationPropagation: Histogram<'bus'>;
  /** A gauge read when scraped. */
  gauge(name: string, help: string, read: () => number): void;
  /** Prometheus text format. */
  text(): Promise<string>;
  readonly contentType: string;
}

/** Bounds in seconds, from a cached answer in the process to the longest statement allowed. */
const CALL_BUCKETS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5];

/** Bounds in seconds, from a loopback's round trip to the longest wait for acknowledgements. */
const PROPAGATION_BUCKETS = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2];

/** Builds a registry of its own, so that tests and several servers in one process do not meet. */
export function openMetrics(): Metrics {
  const registry = new Registry();
  const registers = [registry];
  collectDefaultMetrics({ register: registry, prefix: 'iora_' });
  return {
    calls: new Counter({
      name: 'iora_calls_total',
      help: 'Calls of operations by public error code, ok for success',
      labelNames: ['transport', 'operation', 'code'],
      registers,
    }),
    callSeconds: new Histogram({
      name: 'iora_call_seconds',
      help: 'Time from parsed request to answer',
      labelNames: ['transport', 'operation'],
      buckets: CALL_BUCKETS,
      registers,
    }),
    limitDecisions: new Counter({
      name: 'iora_limit_decisions_total',
      help: 'Decisions of rate limits and quota',
      labelNames: ['decision', 'policy'],
      registers,
    }),
    databaseSeconds: new Histogram({
      name: 'iora_database_transaction_seconds',
      help: 'Database transactions, retries included',
      labelNames: ['outcome'],
      buckets: CALL_BUCKETS,
      registers,
    }),
    keyCache: new Counter({
      name: 'iora_key_cache_total',
      help: 'Key look-ups answered from memory or not',
      labelNames: ['result'],
      registers,
    }),
    usageRows: new Counter({
      name: 'iora_usage_rows_total',
      help: 'Usage events by what became of them',
      labelNames: ['result'],
      registers,
    }),
    sourceCalls: new Counter({
      name: 'iora_source_calls_total',
      help: 'Calls of price sources',
      labelNames: ['source', 'outcome'],
      registers,
    }),
    priceCache: new Counter({
      name: 'iora_price_cache_total',
      help: 'Prices by cache state',
      labelNames: ['state'],
      registers,
    }),
    revocationPropagation: new Histogram({
      name: 'iora_revocation_propagation_seconds',
      help: 'From the commit of a change of rights made here until another instance has acknowledged it',
      labelNames: ['bus'],
      buckets: PROPAGATION_BUCKETS,
      registers,
    }),
    gauge(name, help, read) {
      new Gauge({
        name,
        help,
        registers,
        collect() {
          this.set(read());
        },
      });
    },
    text: () => registry.metrics(),
    contentType: registry.contentType,
  };
}
