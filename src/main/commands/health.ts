import { type PostgresqlHealth, probePostgresql } from '../../features/health/index.ts';
import { AppError, unavailable } from '../../kernel/errors.ts';
import { MigrationError } from '../../platform/migrations.ts';
import { openDatabase } from '../../platform/postgres.ts';
import type { Answer } from '../../transports/cli/command-spec.ts';
import { version } from '../release.ts';
import { type CommandParts, prepareDatabase, withDatabase } from './command-database.ts';
import { unlessAborted } from './interrupt.ts';

/** Long enough for another process to start the embedded database; a hung one is told after this. */
const ATTACH_WITHIN_MS = 5_000;

/** `iora health`: whether this release can serve from the database, asked of the database itself. */
export async function health(): Promise<Answer> {
  try {
    const postgresql = await withDatabase(probe, { attachWithinMs: ATTACH_WITHIN_MS });
    const failure = postgresql.status === 'healthy' ? undefined : unavailable(reasonOf(postgresql));
    return report(postgresql, failure);
  } catch (error) {
    if (!(error instanceof MigrationError) && !(error instanceof AppError && error.code === 'unavailable')) throw error;
    return report({ status: 'unhealthy', reason: error.message }, error);
  }
}

async function probe(parts: CommandParts): Promise<PostgresqlHealth> {
  await prepareDatabase(parts);
  const { config, log, source, signal } = parts;
  const database = openDatabase({
    connection: source.service,
    poolMin: 0,
    poolMax: 1,
    connectionTimeoutMs: config.DATABASE_CONNECTION_TIMEOUT,
    applicationName: 'iora-health',
    onError: (err) => log.warn({ err }, 'a database connection was lost'),
  });
  try {
    return await unlessAborted(probePostgresql(database), signal);
  } finally {
    await database.close();
  }
}

function reasonOf({ version, replication }: PostgresqlHealth): string {
  if (version === null) return 'PostgreSQL does not answer in time.';
  return replication?.inRecovery === true
    ? 'PostgreSQL is in recovery and takes no writes.'
    : 'PostgreSQL is unhealthy.';
}

function report(postgresql: PostgresqlHealth | { status: string; reason: string }, failure: Error | undefined): Answer {
  const output = { status: postgresql.status, version, postgresql };
  return failure === undefined ? { output } : { output, failure };
}
