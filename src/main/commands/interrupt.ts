import { constants } from 'node:os';
import { InterruptedError } from '../../transports/cli/command-errors.ts';

/** Shells report a process that a signal ended as this plus the number of the signal. */
const SIGNAL_EXIT_BASE = 128;

/**
 * From now on SIGINT and SIGTERM abort the signal returned, with an InterruptedError, so that the command can end in
 * order. A second one ends the process at once; what that leaves behind, the next start clears away.
 */
export function interruptSignal(): AbortSignal {
  const interrupt = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.on(name, () => {
      const exitCode = SIGNAL_EXIT_BASE + constants.signals[name];
      if (interrupt.signal.aborted) process.exit(exitCode);
      interrupt.abort(new InterruptedError(exitCode));
    });
  }
  return interrupt.signal;
}

/** Waits for the work, or rejects with the signal's reason as soon as it is aborted; the work is then left to its bounds. */
export async function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const aborted = Promise.withResolvers<never>();
  const onAbort = () => aborted.reject(signal.reason);
  signal.addEventListener('abort', onAbort, { once: true });
  if (signal.aborted) onAbort();
  try {
    return await Promise.race([work, aborted.promise]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}
