import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startServer } from '../../src/main/serve.ts';
import { loadConfig } from '../../src/platform/config.ts';
import { attachEmbeddedPostgres } from '../../src/platform/embedded-postgres.ts';
import { openLog } from '../../src/platform/log.ts';
import { withClient } from './postgres.ts';
import { issueToken } from './token.ts';

/** The whole server in this process, on an embedded PostgreSQL of its own in a temporary folder. */
export interface TestServer {
  readonly baseUrl: string;
  readonly dataDir: string;
  session(person?: { email?: string; org?: string; admin?: boolean }): Promise<string>;
  /** An API key of the session's owner, by default of a person of its own. */
  createKey(options?: { session?: string; body?: Record<string, unknown> }): Promise<string>;
  /** Runs SQL as superuser, for what a test arranges and inspects. Answers the rows. */
  sql(text: string, values?: unknown[]): Promise<Record<string, unknown>[]>;
  stop(): Promise<void>;
}

/** Starts it on a free port. Settings are those of the environment, by name. */
export async function startTestServer(settings: Readonly<Record<string, string>> = {}): Promise<TestServer> {
  const dataDir = await mkdtemp(join(tmpdir(), 'iora-server-'));
  const config = loadConfig({ IORA_DATA_DIR: dataDir, PORT: '0', MARKET_SOURCES: 'simulated', ...settings });
  const server = await startServer(config, openLog('silent'));
  let people = 0;

  async function session(person: { email?: string; org?: string; admin?: boolean } = {}): Promise<string> {
    people += 1;
    return issueToken(dataDir, { email: `person${people}@example.com`, ...person });
  }

  return {
    baseUrl: server.url,
    dataDir,
    session,
    async createKey(options = {}) {
      const response = await fetch(`${server.url}/user/api-keys`, {
        method: 'POST',
        headers: {
          authorization: `Bearer ${options.session ?? (await session())}`,
          'content-type': 'application/json',
        },
        body: JSON.stringify({ name: 'test', ...options.body }),
      });
      const body = (await response.json()) as { key?: string };
      if (body.key === undefined) throw new Error(`no key was made: ${JSON.stringify(body)}`);
      return body.key;
    },
    async sql(text, values) {
      const database = await attachEmbeddedPostgres({ dataDir });
      try {
        return await withClient(database.url('postgres'), async (client) => (await client.query(text, values)).rows);
      } finally {
        await database.stop();
      }
    },
    async stop() {
      await server.stop();
      await rm(dataDir, { recursive: true, force: true });
    },
  };
}
