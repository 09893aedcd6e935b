import { AppError, unavailable } from '../../kernel/errors.ts';
import type { Config } from '../../platform/config.ts';
import type { Connection } from '../../platform/connection.ts';
import { assertDatabaseUsable, awaitDatabase, DatabaseStartError } from '../../platform/database-start.ts';
import { EmbeddedPostgresError } from '../../platform/embedded-postgres.ts';
import { type Log, openLog } from '../../platform/log.ts';
import { migrateUp, migrationStatus } from '../../platform/migrations.ts';
import { type DatabaseSource, openDatabaseSource } from '../database.ts';
import { loadCommandConfig } from './command-config.ts';
import { interruptSignal, unlessAborted } from './interrupt.ts';

/** What a command that needs the database works with. */
export interface CommandParts {
  readonly config: Config;
  readonly log: Log;
  readonly source: DatabaseSource;
  /** Aborted when the command is told to end. */
  readonly signal: AbortSignal;
}

/**
 * Does the work beside a running server or, where there is none, on the embedded database started for it, and cleans up
 * whatever happens. Throws AppError `unavailable`, with the reason in one line, when the database cannot be used, and
 * InterruptedError.
 */
export async function withDatabase<T>(
  work: (parts: CommandParts) => Promise<T>,
  options: { attachWithinMs?: number } = {},
): Promise<T> {
  const config = loadCommandConfig();
  const log = openLog(config.LOG_LEVEL);
  const signal = interruptSignal();
  try {
    const source = await openSource(config, log, signal, options.attachWithinMs);
    try {
      signal.throwIfAborted();
      return await work({ config, log, source, signal });
    } finally {
      await source.stop();
    }
  } catch (error) {
    // What fails once the end was asked for, fails because of it.
    if (signal.aborted && !(error instanceof AppError)) throw signal.reason;
    throw error instanceof DatabaseStartError || error instanceof EmbeddedPostgresError
      ? unavailable(error.message, error)
      : error;
  } finally {
    log.flush();
  }
}

function openSource(config: Config, log: Log, signal: AbortSignal, attachWithinMs?: number): Promise<DatabaseSource> {
  const bounds = attachWithinMs === undefined ? [signal] : [signal, AbortSignal.timeout(attachWithinMs)];
  return openDatabaseSource(config, log, 'command', AbortSignal.any(bounds));
}

/** One attempt to reach the database, bounded: whoever typed the command can type it again. Throws DatabaseStartError. */
export async function reachDatabase(connection: Connection, { signal }: CommandParts): Promise<void> {
  await unlessAborted(awaitDatabase(connection, 0), signal);
}

/**
 * Makes sure that this release can work on the schema: the embedded database is brought up to date, another one is left to
 * `iora migrate up`. Throws MigrationError or DatabaseStartError.
 */
export async function prepareDatabase(parts: CommandParts): Promise<void> {
  const { config, log, source, signal } = parts;
  // The login that serves exists in the embedded database only once that is migrated.
  await reachDatabase(source.embedded ? source.migration : source.service, parts);
  if (source.embedded && (await unlessAborted(migrationStatus(source.migration), signal)).pending.length > 0) {
    const target = { ...source.migration, log: (line: string) => log.debug({ line }, 'migration') };
    await unlessAborted(migrateUp(target), signal);
  }
  const production = config.IORA_MODE === 'production';
  await unlessAborted(assertDatabaseUsable(source.service, { production }), signal);
}
