import { runCli } from '../transports/cli/program.ts';
import { version } from './release.ts';

/**
 * The command line's process. Every command loads only what it needs, so that those which need little answer at once.
 */

/** A reader that went away (`iora keys list | head -1`) is no failure; anything else that hinders an answer is. */
function write(stream: 'stdout' | 'stderr', text: string): Promise<void> {
  return new Promise((resolve, reject) => {
    process[stream].write(text, (error) => {
      if (error && (error as NodeJS.ErrnoException).code !== 'EPIPE') reject(error);
      else resolve();
    });
  });
}

// The callbacks of `write` hear of failures; without a listener they would also end the process.
process.stdout.on('error', () => undefined);
process.stderr.on('error', () => undefined);

const exitCode = await runCli(process.argv.slice(2), {
  version,
  write,
  loadOperations: async () => (await import('./operation-list.ts')).describeOperations(),
  call: async (request, answer) => (await import('./commands/call-operation.ts')).callOperation(request, answer),
  actions: {
    serve: async ({ options }) => {
      await (await import('./serve.ts')).runServer({ json: options.has('json') });
      return undefined;
    },
    migrateUp: async (given) => (await import('./commands/migrate.ts')).up(given),
    migrateDown: async (given) => (await import('./commands/migrate.ts')).down(given),
    migrateStatus: async () => (await import('./commands/migrate.ts')).status(),
    migrateNew: async (given) => (await import('./commands/migrate.ts')).create(given),
    authToken: async (given) => (await import('./commands/auth-token.ts')).token(given),
    keysInspect: async () => (await import('./commands/keys.ts')).inspect(),
    keysPeppers: async () => (await import('./commands/keys.ts')).peppers(),
    health: async () => (await import('./commands/health.ts')).health(),
    config: async () => (await import('./commands/config.ts')).config(),
  },
  describeFailure: async (error) => {
    const { describeFailure, exitCodeOf } = await import('./run-process.ts');
    return { message: describeFailure(error), exitCode: exitCodeOf(error) };
  },
});
if (exitCode !== undefined) process.exit(exitCode);
