// An embedded PostgreSQL of a benchmark's own, in a temporary folder, with as many migrated databases as it needs.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { parseConnection } from '../src/platform/connection.ts';
import { startEmbeddedPostgres } from '../src/platform/embedded-postgres.ts';
import { migrateUp } from '../src/platform/migrations.ts';
import { type Database, openDatabase } from '../src/platform/postgres.ts';

export interface TemporaryPostgres {
  /** Version of the server. */
  readonly version: string;
  /** Makes a database of that name with this release's schema. Returns the URL of its superuser. */
  create(name: string): Promise<string>;
  /** Opens a database as the service does, with that many connections. */
  open(name: string, connections: number): Database;
  /** Stops the server and removes its folder. */
  remove(): Promise<void>;
}

const CONNECTION_TIMEOUT_MS = 5_000;

/** Starts the server. */
export async function startTemporaryPostgres(): Promise<TemporaryPostgres> {
  const dataDir = await mkdtemp(join(tmpdir(), 'iora-bench-'));
  const removeFolder = () => rm(dataDir, { recursive: true, force: true, maxRetries: 5 });
  try {
    const server = await startEmbeddedPostgres({ dataDir });
    return {
      version: await versionOf(server.url('postgres')),
      async create(name) {
        await withClient(server.url('postgres', 'postgres'), (client) => client.query(`CREATE DATABASE ${name}`));
        const url = server.url('postgres', name);
        await migrateUp({ url, logins: { iora_api: server.password('iora_api') } });
        return url;
      },
      open: (name, connections) =>
        openDatabase({
          connection: parseConnection(server.url('iora_api', name)),
          poolMin: connections,
          poolMax: connections,
          connectionTimeoutMs: CONNECTION_TIMEOUT_MS,
          applicationName: 'iora-bench',
        }),
      async remove() {
        await server.stop();
        await removeFolder();
      },
    };
  } catch (error) {
    await removeFolder();
    throw error;
  }
}

/** Runs `work` on a connection of its own and closes it. */
export async function withClient<T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

/** The version of a server, as in "18.4". */
export function versionOf(url: string): Promise<string> {
  return withClient(url, async (client) => {
    const { rows } = await client.query<{ server_version: string }>('SHOW server_version');
    return rows[0]?.server_version ?? 'unknown';
  });
}
