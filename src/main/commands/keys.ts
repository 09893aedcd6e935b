import { countByPepper, type InspectionParts, inspectKey } from '../../features/keys/index.ts';
import { AppError } from '../../kernel/errors.ts';
import { openDatabase } from '../../platform/postgres.ts';
import { UsageError } from '../../transports/cli/command-errors.ts';
import type { Answer } from '../../transports/cli/command-spec.ts';
import { render } from '../../transports/cli/render.ts';
import { loadSecrets } from '../secrets.ts';
import { type CommandParts, prepareDatabase, withDatabase } from './command-database.ts';
import { unlessAborted } from './interrupt.ts';

/** Characters of standard input looked at: far more than a key has, and no whole file. */
const INPUT_LENGTH_MAX = 4_096;

/** `iora keys inspect`: what the key on standard input is. An argument would stand in the process list. */
export async function inspect(): Promise<Answer> {
  const key = await readKey();
  const output = await withDatabase((command) => withKeys(command, (parts) => inspectKey(parts, key, Date.now())));
  if (output.state !== 'unknown') return { output };
  const reason = output.wellFormed
    ? 'It has the shape and checksum of a key, but nobody here made it, or it was cleared long after its end.'
    : 'It has not the shape and checksum of a key: look for characters that are missing, added or mistyped.';
  return { output, failure: new AppError('not_found', reason) };
}

/**
 * The first line of standard input that says something. Throws UsageError where there is none, and at a terminal, which would
 * show the key and keep it in its scrollback.
 */
async function readKey(): Promise<string> {
  if (process.stdin.isTTY) {
    throw new UsageError('a terminal would show the key; put it in a file: iora keys inspect < FILE');
  }
  let text = '';
  for await (const chunk of process.stdin.setEncoding('utf8')) {
    text = `${text}${chunk}`.trimStart().slice(0, INPUT_LENGTH_MAX);
    if (/[\r\n]/.test(text)) break;
  }
  const [line = ''] = text.split(/[\r\n]/);
  if (line.trim() === '') throw new UsageError('give the key on standard input, such as: iora keys inspect < FILE');
  return line.trim();
}

/** `iora keys peppers`: which peppers are still needed. */
export async function peppers(): Promise<Answer> {
  const items = await withDatabase((command) => withKeys(command, countByPepper));
  const answer = { output: { peppers: items }, text: render({ items }) };
  const missing = items.filter((item) => item.liveSecrets > 0 && !item.configured).map(({ version }) => version);
  if (missing.length === 0) return answer;
  const failure = new AppError(
    'unavailable',
    `Live secrets hang on pepper ${missing.join(', ')}, which is not configured: put it back behind the newest in KEY_PEPPER.`,
  );
  return { ...answer, failure };
}

async function withKeys<T>(command: CommandParts, work: (parts: InspectionParts) => Promise<T>): Promise<T> {
  await prepareDatabase(command);
  const { config, log, source, signal } = command;
  const database = openDatabase({
    connection: source.service,
    poolMin: 0,
    poolMax: 1,
    connectionTimeoutMs: config.DATABASE_CONNECTION_TIMEOUT,
    applicationName: 'iora-keys',
    onError: (err) => log.warn({ err }, 'a database connection was lost'),
  });
  try {
    return await unlessAborted(work({ database, peppers: loadSecrets(config, log).peppers }), signal);
  } finally {
    await database.close();
  }
}
