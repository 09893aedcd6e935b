import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { cleanEnvironment } from './server-process.ts';

/** The real command line as a child process. */
export interface CliRun {
  /** Null when it had to be killed. */
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface CliProcess {
  readonly child: ChildProcess;
  /** Resolves once standard error or output holds that text; rejects when the process ends before. */
  said(text: string): Promise<void>;
  readonly ended: Promise<CliRun>;
}

/** No command takes this long; one that does is killed, and its exit code is then null. */
const HANGING_AFTER_MS = 60_000;

const root = fileURLToPath(new URL('../..', import.meta.url));

/**
 * Starts a command. Of the surroundings it sees nothing but what a process needs, and the settings given. Its standard input
 * is empty unless text is given.
 */
export function startCli(words: readonly string[], settings: Readonly<Record<string, string>>, input = ''): CliProcess {
  const child = spawn(process.execPath, ['src/main/cli.ts', ...words], {
    cwd: root,
    env: cleanEnvironment({ MARKET_SOURCES: 'simulated', ...settings }),
    stdio: ['pipe', 'pipe', 'pipe'],
    timeout: HANGING_AFTER_MS,
    killSignal: 'SIGKILL',
  });
  // Most commands end without having read it.
  child.stdin.on('error', () => undefined);
  child.stdin.end(input);
  const output = { stdout: '', stderr: '' };
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output.stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    output.stderr += text;
  });
  const ended = once(child, 'close').then(() => ({ exitCode: child.exitCode, ...output }));
  return {
    child,
    ended,
    async said(text) {
      const holds = () => `${output.stdout}\n${output.stderr}`.includes(text);
      while (!holds()) {
        const more = [once(child.stdout, 'data'), once(child.stderr, 'data')];
        await Promise.race([...more, ended]);
        if (!holds() && child.exitCode !== null) throw new Error(`it ended without saying ${text}: ${output.stderr}`);
      }
    },
  };
}

/** Runs a command to its end. */
export function runCli(
  words: readonly string[],
  settings: Readonly<Record<string, string>>,
  input?: string,
): Promise<CliRun> {
  return startCli(words, settings, input).ended;
}
