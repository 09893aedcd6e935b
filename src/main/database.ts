import type { Config } from '../platform/config.ts';
import { type Connection, parseConnection } from '../platform/connection.ts';
import {
  attachEmbeddedPostgres,
  type EmbeddedPostgres,
  type EmbeddedPostgresOptions,
  startEmbeddedPostgres,
} from '../platform/embedded-postgres.ts';
import type { Log } from '../platform/log.ts';
import type { MigrationTarget } from '../platform/migrations.ts';

/** Where this installation's PostgreSQL is: the operator's own, or the embedded one. */
export interface DatabaseSource {
  /** Serves requests, possibly through a pooler. */
  readonly service: Connection;
  /** Past any pooler, for LISTEN. */
  readonly direct: Connection;
  readonly migration: Connection & MigrationTarget;
  /** True when the embedded server is used. */
  readonly embedded: boolean;
  /** Stops what this process started. */
  stop(): Promise<void>;
}

/**
 * Finds or starts the database. A serving process takes the embedded server's folder for itself; a command uses the
 * running one, else runs it for as long as it needs it; `signal` ends its waiting for one that does not answer. Throws
 * EmbeddedPostgresError with one clear line.
 */
export async function openDatabaseSource(
  config: Config,
  log: Log,
  use: 'serve' | 'command',
  signal?: AbortSignal,
): Promise<DatabaseSource> {
  if (config.DATABASE_URL !== undefined) return ownDatabase(config, config.DATABASE_URL);
  if (config.IORA_MODE === 'production') {
    log.warn(
      {},
      `IORA_MODE=production with the embedded PostgreSQL below ${config.IORA_DATA_DIR}: set DATABASE_URL for a server of your own`,
    );
  }
  const options: EmbeddedPostgresOptions = {
    dataDir: config.IORA_DATA_DIR,
    log: (event, details) => log.info({ ...details, event }, 'embedded PostgreSQL'),
    signal,
  };
  const server = await (use === 'serve' ? startEmbeddedPostgres(options) : attachEmbeddedPostgres(options));
  return embeddedDatabase(server);
}

function ownDatabase(config: Config, databaseUrl: string): DatabaseSource {
  const direct = config.DATABASE_DIRECT_URL ?? databaseUrl;
  const connectionTo = (url: string) => parseConnection(url, config.DATABASE_CA_FILE);
  return {
    service: connectionTo(databaseUrl),
    direct: connectionTo(direct),
    migration: connectionTo(config.DATABASE_MIGRATION_URL ?? direct),
    embedded: false,
    stop: () => Promise.resolve(),
  };
}

/** The embedded server has the same roles as any other; the service logs in as the one that serves requests. */
function embeddedDatabase(server: EmbeddedPostgres): DatabaseSource {
  const service = parseConnection(server.url('iora_api'));
  return {
    service,
    direct: service,
    migration: { ...parseConnection(server.url('postgres')), logins: { iora_api: server.password('iora_api') } },
    embedded: true,
    stop: () => server.stop(),
  };
}
