/** Lets at most `runningMax` run at once and `waitingMax` wait for their turn, in order; `refuse` makes the error of the rest. */
export function createGate(bounds: {
  readonly runningMax: number;
  readonly waitingMax: number;
  readonly refuse: () => Error;
}): <T>(work: () => Promise<T>) => Promise<T> {
  const waiting: (() => void)[] = [];
  let running = 0;
  return async function pass(work) {
    if (running >= bounds.runningMax) {
      if (waiting.length >= bounds.waitingMax) throw bounds.refuse();
      // Whoever leaves hands its place over, so `running` does not change here.
      await new Promise<void>((resolve) => waiting.push(resolve));
    } else {
      running += 1;
    }
    try {
      return await work();
    } finally {
      const next = waiting.shift();
      if (next === undefined) running -= 1;
      else next();
    }
  };
}
