/**
 * A process using the embedded database, to be started, signalled and killed by tests:
 * `node embedded-postgres-child.ts start|attach|leave|work DATA_DIR`. Prints one line of JSON for each thing that happens.
 * `leave` ends without stopping; `work` attaches, runs statements on new connections and stops; the others stop on SIGINT,
 * SIGTERM or the end of standard input.
 */
import { once } from 'node:events';
import { Client } from 'pg';
import { attachEmbeddedPostgres, startEmbeddedPostgres } from '../../src/platform/embedded-postgres.ts';

const STATEMENTS = 10;

const [mode, dataDir = ''] = process.argv.slice(2);
const say = (fact: object) => process.stdout.write(`${JSON.stringify({ pid: process.pid, ...fact })}\n`);

async function countRows(url: string): Promise<number> {
  const client = new Client(url);
  await client.connect();
  const { rows } = await client.query<{ count: number }>('SELECT count(*)::int AS count FROM pg_class');
  await client.end();
  return rows[0]?.count ?? 0;
}

try {
  const begin = mode === 'attach' || mode === 'work' ? attachEmbeddedPostgres : startEmbeddedPostgres;
  const database = await begin({ dataDir, log: (event, details) => say({ log: event, ...details }) });
  say({ ready: true, port: database.port, started: database.started });
  if (mode === 'work') for (let i = 0; i < STATEMENTS; i++) await countRows(database.url('postgres'));
  if (mode === 'start' || mode === 'attach') {
    process.stdin.resume();
    await Promise.race([once(process, 'SIGINT'), once(process, 'SIGTERM'), once(process.stdin, 'end')]);
    process.stdin.destroy();
    say({ drained: await countRows(database.url('postgres')) });
  }
  if (mode !== 'leave') await database.stop();
  say({ done: true });
} catch (error) {
  say({ failed: String(error) });
  process.exitCode = 1;
}
