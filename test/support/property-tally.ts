// What the cases came to, by operation and transport: the figures that are printed, and the books that have to balance.
import type { TransportName } from '../../src/kernel/context.ts';
import type { Operation } from '../../src/kernel/operation.ts';
import type { Answer, AnswerCode } from './property-answers.ts';
import type { Caller } from './property-world.ts';

/** The figures of one operation over one transport. */
export interface TransportFigures {
  /** Cases that were sent. */
  sent: number;
  /** Of those, the ones that got as far as `run`. */
  ran: number;
  /** Cases that this transport has no message for, by the reason. */
  readonly leftOut: Map<string, number>;
  readonly codes: Map<AnswerCode, number>;
}

/** What an owner's usage has to be afterwards. */
export interface Books {
  /** Request ids of the answered calls that cost something, and of those that are recorded at no cost. */
  readonly charged: string[];
  readonly free: string[];
  /** By owner, what counts in the quota. */
  readonly cost: Map<string, number>;
  /** Request ids of answered writes. */
  readonly written: string[];
}

export interface OperationTally {
  readonly figures: ReadonlyMap<TransportName, TransportFigures>;
  readonly books: Books;
  /** Pairs of answers to the same input that were held against each other. */
  comparisons: number;
  sent(answer: Answer, ran: boolean): void;
  leftOut(transport: TransportName, reason: string): void;
  /** Enters an answer into the books, whether it is counted as a case or not. */
  answered(answer: Answer, caller: Caller, ran: boolean): void;
  compared(pairs: number): void;
}

/** An empty tally for an operation. */
export function createTally(operation: Operation): OperationTally {
  const figures = new Map<TransportName, TransportFigures>(
    operation.transports.map((transport) => [transport, { sent: 0, ran: 0, leftOut: new Map(), codes: new Map() }]),
  );
  const books: Books = { charged: [], free: [], cost: new Map(), written: [] };
  const of = (transport: TransportName) => {
    const found = figures.get(transport);
    if (found === undefined) throw new Error(`${operation.name} is not offered over ${transport}`);
    return found;
  };

  return {
    figures,
    books,
    comparisons: 0,
    sent({ transport, code }, ran) {
      const figure = of(transport);
      figure.sent += 1;
      if (ran) figure.ran += 1;
      count(figure.codes, code);
    },
    leftOut: (transport, reason) => count(of(transport).leftOut, reason),
    answered({ transport, code, requestId }, caller, ran) {
      if (code === 'ok' && !operation.readOnly) books.written.push(requestId);
      if (operation.cost === 0) return;
      if (code === 'ok') {
        books.charged.push(requestId);
        const principal = transport === 'cli' ? caller.operator : caller.principal;
        if (principal !== null && principal.key?.environment !== 'test') {
          books.cost.set(principal.ownerId, (books.cost.get(principal.ownerId) ?? 0) + operation.cost);
        }
      } else if (ran || code === 'rate_limited' || code === 'quota_exceeded') books.free.push(requestId);
    },
    compared(pairs) {
      this.comparisons += pairs;
    },
  };
}

function count<Key>(counts: Map<Key, number>, key: Key): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}

/** The figures as a table for people, one line each. */
export function tableOf(tallies: ReadonlyMap<string, OperationTally>): string[] {
  const rows = [['operation', 'transport', 'sent', 'reached run', 'share', 'not expressible', 'answers']];
  for (const [name, { figures }] of tallies) {
    for (const [transport, { sent, ran, leftOut, codes }] of figures) {
      const without = [...leftOut.values()].reduce((sum, number) => sum + number, 0);
      const answers = [...codes].sort(([, one], [, other]) => other - one).map(([code, number]) => `${code} ${number}`);
      rows.push([
        name,
        transport,
        String(sent),
        String(ran),
        `${sent === 0 ? 0 : Math.floor((100 * ran) / sent)} %`,
        String(without),
        answers.join(', '),
      ]);
    }
  }
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => (row[column] ?? '').length)));
  return rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd(),
  );
}
