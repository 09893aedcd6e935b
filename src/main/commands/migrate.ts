import {
  MigrationNameError,
  migrateDown,
  migrateUp,
  migrationStatus,
  newMigration,
} from '../../platform/migrations.ts';
import { UsageError } from '../../transports/cli/command-errors.ts';
import type { Answer, Given } from '../../transports/cli/command-spec.ts';
import { type CommandParts, reachDatabase, withDatabase } from './command-database.ts';
import { unlessAborted } from './interrupt.ts';

/** `iora migrate up`: applies what is pending, or with `--dry-run` prints its SQL. */
export function up({ options }: Given): Promise<Answer> {
  const to = options.get('to');
  return withMigrationLogin(async ({ source, log, signal }) => {
    const sql: string[] = [];
    const dryRun = options.has('dry-run');
    const { applied } = await unlessAborted(
      migrateUp(
        { ...source.migration, log: (line) => (dryRun ? void sql.push(line) : log.debug({ line }, 'migration')) },
        { to: typeof to === 'string' ? to : undefined, dryRun },
      ),
      signal,
    );
    if (dryRun) {
      const text = sql.map((part) => `${part.trimEnd()}\n`).join('\n');
      return { output: { sql: sql.join('\n') }, text: text === '' ? 'nothing to do\n' : text };
    }
    return { output: { applied } };
  });
}

/** `iora migrate down`: takes back the newest migrations. */
export async function down({ options }: Given): Promise<Answer> {
  const text = options.get('count') ?? '1';
  const count = typeof text === 'string' && /^[1-9]\d{0,5}$/.test(text) ? Number(text) : undefined;
  if (count === undefined) throw new UsageError('--count must be a whole number from 1');
  return withMigrationLogin(async ({ source, signal }) => ({
    output: await unlessAborted(migrateDown(source.migration, { count }), signal),
  }));
}

/** `iora migrate status`: what is applied and what is not. */
export function status(): Promise<Answer> {
  return withMigrationLogin(async ({ source, signal }) => {
    const { applied, ...rest } = await unlessAborted(migrationStatus(source.migration), signal);
    const withTimes = applied.map(({ name, appliedAt }) => ({ name, appliedAt: appliedAt.toISOString() }));
    return { output: { applied: withTimes, ...rest } };
  });
}

/** `iora migrate new NAME`: the skeleton of the next migration. */
export async function create({ positionals }: Given): Promise<Answer> {
  const [name] = positionals;
  if (name === undefined) throw new UsageError('say what the migration is for: iora migrate new create_users');
  try {
    const path = await newMigration(name);
    return { output: { path }, text: `${path}\n` };
  } catch (error) {
    throw error instanceof MigrationNameError ? new UsageError(error.message) : error;
  }
}

function withMigrationLogin<T>(work: (parts: CommandParts) => Promise<T>): Promise<T> {
  return withDatabase(async (parts) => {
    await reachDatabase(parts.source.migration, parts);
    return work(parts);
  });
}
