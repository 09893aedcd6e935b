import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

/** The real server as a child process, for the demo, tests and benchmarks. */

export interface ServerProcess {
  readonly url: string;
  readonly child: ChildProcess;
  /** Milliseconds from spawn until it took traffic. */
  readonly startedInMs: number;
  /** What it wrote to standard error so far, bounded. */
  log(): string;
  /** Ends it with that signal and resolves to its exit code, null when the signal ended it. */
  stop(signal?: NodeJS.Signals): Promise<number | null>;
}

const START_TIMEOUT_MS = 60_000;
const LOG_CHARACTERS_KEPT = 200_000;

const root = fileURLToPath(new URL('../..', import.meta.url));

/** Only what a process needs of the surroundings, so that settings of the machine do not leak into the server. */
export function cleanEnvironment(settings: Readonly<Record<string, string>>): Record<string, string> {
  const kept = ['PATH', 'HOME', 'TMPDIR', 'LANG', 'SystemRoot'];
  const inherited = kept.flatMap((name) => (process.env[name] === undefined ? [] : [[name, process.env[name]]]));
  return { ...Object.fromEntries(inherited), ...settings };
}

/** Starts `node src/main/serve.ts` on a free port and waits until it takes traffic. Rejects with its log when it ends first. */
export async function startServerProcess(settings: Readonly<Record<string, string>>): Promise<ServerProcess> {
  const startedAt = performance.now();
  const child = spawn(process.execPath, ['src/main/serve.ts'], {
    cwd: root,
    env: cleanEnvironment({ PORT: '0', MARKET_SOURCES: 'simulated', ...settings }),
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let log = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    log = (log + text).slice(-LOG_CHARACTERS_KEPT);
  });
  const url = await firstLine(child, () => log);
  return {
    url,
    child,
    startedInMs: performance.now() - startedAt,
    log: () => log,
    async stop(signal = 'SIGTERM') {
      if (child.exitCode === null && child.signalCode === null) {
        child.kill(signal);
        await once(child, 'exit');
      }
      return child.exitCode;
    },
  };
}

async function firstLine(child: ChildProcess, log: () => string): Promise<string> {
  if (child.stdout === null) throw new Error('the server has no standard output');
  const lines = createInterface({ input: child.stdout });
  const timeout = AbortSignal.timeout(START_TIMEOUT_MS);
  const ended = once(child, 'exit', { signal: timeout }).then(([code, signal]) => {
    throw new Error(`the server ended with ${code ?? signal} before it took traffic:\n${log()}`);
  });
  const line = once(lines, 'line', { signal: timeout }).then(([text]) => String(text));
  const url = /http:\/\/\S+/.exec(await Promise.race([line, ended]))?.[0];
  ended.catch(() => undefined);
  if (url === undefined) throw new Error('the server did not say where it takes traffic');
  return url;
}
