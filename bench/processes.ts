// Child processes of a benchmark: started on the core they are to run on, and what they use of which core. Cores are only
// told apart on Linux; elsewhere everything runs where the system puts it, and the results say so.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { rounded } from './statistics.ts';

/** Servers run on one core and their load on another, so that neither takes time from the other. */
export const SERVER_CORE = 0;
export const LOAD_CORE = 1;

/** Whether processes can be tied to cores here. */
export const canPin = availableParallelism() > 1 && spawnSync('taskset', ['-c', '0', 'true']).status === 0;

/** Longest time a child may take to end after it was told to. */
const END_MAX_MS = 5_000;
/** USER_HZ, in which Linux tells times of processes: the same on every architecture Node runs on. */
const TICKS_PER_SECOND = 100;

/** A program of this folder that takes messages, tied to a core. */
export interface Helper {
  readonly pid: number;
  /** Sends a message and returns the answer. Throws when the program ends instead, or answers later than `maxMs`. */
  ask<T>(message: object, maxMs: number): Promise<T>;
  stop(): Promise<void>;
}

/** Starts a program of this folder on that core. It ends by itself when this process does. */
export function startHelper(file: string, core: number): Helper {
  const path = fileURLToPath(new URL(file, import.meta.url));
  const [command = process.execPath, ...args] = [
    ...(canPin ? ['taskset', '-c', String(core)] : []),
    process.execPath,
    path,
  ];
  const child = spawn(command, args, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  return {
    pid: child.pid ?? 0,
    async ask<T>(message: object, maxMs: number): Promise<T> {
      // Aborted in the end, so that the loser of the race stops listening.
      const over = new AbortController();
      const signal = AbortSignal.any([over.signal, AbortSignal.timeout(maxMs)]);
      const answered = once(child, 'message', { signal });
      const gone = once(child, 'exit', { signal }).then(() => {
        throw new Error(`${file} ended`);
      });
      // Both are raced below; whichever comes second has nobody left to tell.
      answered.catch(() => undefined);
      gone.catch(() => undefined);
      try {
        child.send(message);
        const [answer] = (await Promise.race([answered, gone])) as [T];
        return answer;
      } finally {
        over.abort();
      }
    },
    stop: () => ended(child, () => child.disconnect()),
  };
}

/** Tells a child to end and waits until it has; ends it by force when it does not. Returns its exit code, if any. */
export async function ended(child: ChildProcess, tell: () => void, maxMs = END_MAX_MS): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exit = once(child, 'exit');
  const timer = setTimeout(() => child.kill('SIGKILL'), maxMs);
  tell();
  await exit;
  clearTimeout(timer);
}

/** Ties a running process, with all its threads, to a core. What it started before stays where it is. */
export function pin(pid: number, core: number): void {
  if (!canPin) return;
  const { status, stderr } = spawnSync('taskset', ['-a', '-c', '-p', String(core), String(pid)], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`taskset: ${stderr}`);
}

/** Seconds of processor time that a process has used so far; 0 where that cannot be known. */
export function cpuSeconds(pid: number): number {
  return statOf(pid)?.cpuSeconds ?? 0;
}

/** The process ids of a process and of its children. */
export function family(pid: number): number[] {
  if (process.platform !== 'linux') return [];
  const pids = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
  return pids.filter((candidate) => candidate === pid || statOf(candidate)?.parent === pid);
}

/** How often the cores of a family are looked at; the kernel moves a busy process a few times a second. */
const CORE_SAMPLE_MS = 250;

/** Watches on which cores a process and its children use their time. Returns what to call for the seconds by core. */
export function watchCores(pid: number): () => Readonly<Record<string, number>> {
  const byCore: Record<string, number> = {};
  const before = new Map<number, number>();
  const look = (counted: boolean) => {
    for (const member of family(pid)) {
      const stat = statOf(member);
      if (stat === undefined) continue;
      const used = stat.cpuSeconds - (before.get(member) ?? (counted ? 0 : stat.cpuSeconds));
      before.set(member, stat.cpuSeconds);
      if (used > 0) byCore[`core ${stat.core}`] = (byCore[`core ${stat.core}`] ?? 0) + used;
    }
  };
  look(false);
  const timer = setInterval(look, CORE_SAMPLE_MS, true);
  timer.unref();
  return () => {
    clearInterval(timer);
    look(true);
    return Object.fromEntries(Object.entries(byCore).map(([core, seconds]) => [core, rounded(seconds)]));
  };
}

function statOf(pid: number): { parent: number; cpuSeconds: number; core: number } | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // Fields are counted after the name, which may hold anything; proc(5) numbers them from 1, state being 3.
    const fields = text
      .slice(text.lastIndexOf(')') + 2)
      .split(' ')
      .map(Number);
    const field = (number: number) => fields[number - 3] ?? 0;
    return { parent: field(4), cpuSeconds: (field(14) + field(15)) / TICKS_PER_SECOND, core: field(39) };
  } catch {
    // It ended, or this system has no /proc.
    return undefined;
  }
}
