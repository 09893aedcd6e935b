import { CONFIG_EXIT_CODE, ConfigError } from '../platform/config.ts';
import { DatabaseStartError } from '../platform/database-start.ts';
import { EmbeddedPostgresError } from '../platform/embedded-postgres.ts';
import { MigrationError } from '../platform/migrations.ts';
import { DatabaseUnavailableError } from '../platform/postgres.ts';

/** A start that is asked to stop gets this long to come to where it can be stopped in order. */
const START_STOP_MAX_MS = 15_000;
/** Time beyond the shutdown's own deadline before the process ends by force. */
const FORCED_EXIT_AFTER_MS = 5_000;

/** What to do when a signal comes: stops everything and resolves to the exit code. */
type OnStop = (stop: () => Promise<number>, deadlineMs: number) => void;

/**
 * Runs a process that stays: prints a failed start as one clear line, and on SIGTERM or SIGINT stops in order. A second
 * signal, or a stop that outlasts its deadline, ends the process at once with exit code 1.
 */
export async function runProcess(main: (onStop: OnStop) => Promise<void>): Promise<void> {
  let stop: { run: () => Promise<number>; deadlineMs: number } | undefined;
  let stopAsked = false;
  let forcedExit: NodeJS.Timeout | undefined;

  function begin(): void {
    clearTimeout(forcedExit);
    forcedExit = setTimeout(
      () => {
        process.stderr.write('iora: stopping took too long; ended by force\n');
        process.exit(1);
      },
      stop === undefined ? START_STOP_MAX_MS : stop.deadlineMs + FORCED_EXIT_AFTER_MS,
    );
    forcedExit.unref();
    if (stop === undefined) return;
    stop.run().then(
      (exitCode) => process.exit(exitCode),
      (error: unknown) => fail(error),
    );
  }

  const onSignal = () => {
    if (stopAsked) process.exit(1);
    stopAsked = true;
    begin();
  };
  process.on('SIGTERM', onSignal);
  process.on('SIGINT', onSignal);
  try {
    await main((run, deadlineMs) => {
      stop = { run, deadlineMs };
    });
    // A signal that came while starting is obeyed once there is something whole to stop.
    if (stopAsked) begin();
  } catch (error) {
    fail(error);
  }
}

/** Errors whose message alone tells the operator what to do; all others are faults and show where they happened. */
const EXPLAINED = [ConfigError, DatabaseStartError, EmbeddedPostgresError, MigrationError, DatabaseUnavailableError];

/** Prints the failure on standard error and ends the process. */
function fail(error: unknown): never {
  process.stderr.write(`iora: ${describeFailure(error)}\n`);
  process.exit(exitCodeOf(error));
}

/** The exit code of a process that failed with this: 78 for configuration, else 1. */
export function exitCodeOf(error: unknown): number {
  return error instanceof ConfigError ? CONFIG_EXIT_CODE : 1;
}

/** One clear line for what an operator can mend; the stack for what only we can. */
export function describeFailure(error: unknown): string {
  if (EXPLAINED.some((kind) => error instanceof kind) || isAddressError(error)) return (error as Error).message;
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

function isAddressError(error: unknown): boolean {
  return (
    error instanceof Error && 'code' in error && ['EADDRINUSE', 'EACCES', 'EADDRNOTAVAIL'].includes(String(error.code))
  );
}
