import type { Transaction } from '../platform/postgres.ts';

/** What a round of a job works with. */
export interface JobContext {
  /** Transaction with no tenant, in which this instance alone runs the job; it ends with the round. */
  readonly tx: Transaction;
  readonly nowMs: number;
  /** Work to do once the round is durable. */
  afterCommit(work: () => Promise<void> | void): void;
}

/**
 * Upkeep that is due every so often, on whichever instance comes first. A round is one short transaction, bounded by a batch;
 * what is left over is for the next. A round with nothing to do does nothing.
 */
export interface Job {
  /** `keys.expire` */
  readonly name: string;
  readonly everyMs: number;
  /** Answers how many things were done, by kind; counts of 0 are not logged. */
  readonly run: (context: JobContext) => Promise<Readonly<Record<string, number>>>;
}
