/** Keeps the server of a data folder running: starts it on a free port and restarts it, within bounds, when it dies. */
import { randomInt } from 'node:crypto';
import { createServer } from 'node:net';
import type { Cluster } from './embedded-postgres-cluster.ts';
import { EmbeddedPostgresError, type FolderLock } from './embedded-postgres-lock.ts';
import { clearLeftovers, HOST, launch, type Postmaster, stopPostmaster, until } from './embedded-postgres-server.ts';

/**
 * A start takes below a second. After a crash PostgreSQL first replays its log, at most about max_wal_size (1 GB) of it, and
 * ending that early would only make the next start begin it anew.
 */
const STARTUP_BOUND_MS = 120_000;
/** A port can be taken between choosing and using it, and a session of a dead server can outlast one try. */
const START_ATTEMPTS = 3;
/** A server that keeps dying is not kept dying: so many restarts within the window, each after double the pause. */
const RESTARTS = 5;
const RESTART_WINDOW_MS = 60_000;
const FIRST_PAUSE_MS = 100;
/** Below the ports that systems give to outgoing connections (from 32768), so that none of those takes it while it is free. */
const PORTS = { from: 20_000, to: 32_767, attempts: 20 } as const;

/** Receives what happens to the server, as an event name and facts about it. */
export type Log = (event: string, details: Record<string, unknown>) => void;

/** A server that is kept running until it is stopped. */
export interface Supervisor {
  readonly port: number;
  /** Stops the server for good; returns when its process has ended and no restart is under way. */
  stop(): Promise<void>;
}

/** Starts the server, and starts it again on the same port when it dies; `stop` ends both. */
export async function supervise(cluster: Cluster, lock: FolderLock, log: Log): Promise<Supervisor> {
  let current: Postmaster | undefined;
  let stopping = false;
  let revival: Promise<void> | undefined;
  let restartedAt: number[] = [];

  const begin = async (port: number, boundMs: number) => {
    // Also proves that the folder is still ours: what runs there otherwise is not ours to clear away.
    lock.update({ postmasterPid: undefined });
    await clearLeftovers(cluster);
    if (stopping) return;
    const postmaster = await launch(cluster, port, boundMs, (spawned) => {
      current = spawned;
      void spawned.exited.then(() => {
        current = undefined;
      });
    });
    lock.update({ postmasterPid: postmaster.pid });
    void postmaster.exited.then((how) => {
      if (stopping) return;
      log('embedded_postgres.died', { how, port });
      revival = revive(port);
    });
  };
  const revive = async (port: number) => {
    while (!stopping) {
      restartedAt = restartedAt.filter((time) => performance.now() - time < RESTART_WINDOW_MS);
      if (restartedAt.length >= RESTARTS) {
        log('embedded_postgres.gave_up', { port, restarts: RESTARTS, withinMs: RESTART_WINDOW_MS });
        return;
      }
      await until(() => stopping, FIRST_PAUSE_MS * 2 ** restartedAt.length);
      restartedAt.push(performance.now());
      try {
        await begin(port, STARTUP_BOUND_MS);
        if (!stopping) log('embedded_postgres.restarted', { port });
        return;
      } catch (error) {
        log('embedded_postgres.restart_failed', { port, error: String(error) });
      }
    }
  };

  const stop = async () => {
    stopping = true;
    if (current !== undefined) await stopPostmaster(cluster, current.pid);
    await revival;
  };

  const deadline = performance.now() + STARTUP_BOUND_MS;
  for (let attempt = 1; ; attempt++) {
    const port = await freePort();
    try {
      await begin(port, deadline - performance.now());
      return { port, stop };
    } catch (error) {
      log('embedded_postgres.start_failed', { port, error: String(error) });
      if (attempt < START_ATTEMPTS && performance.now() < deadline) continue;
      await stop();
      throw error;
    }
  }
}

/** Returns a port of 127.0.0.1 that nobody listens on. */
async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < PORTS.attempts; attempt++) {
    const port = randomInt(PORTS.from, PORTS.to + 1);
    const probe = createServer();
    const isFree = await new Promise<boolean>((resolve) => {
      probe.once('error', () => resolve(false));
      probe.listen(port, HOST, () => resolve(true));
    });
    if (!isFree) continue;
    await new Promise((resolve) => probe.close(resolve));
    return port;
  }
  throw new EmbeddedPostgresError(
    `No free port on ${HOST} between ${PORTS.from} and ${PORTS.to}: end some programs that listen there.`,
  );
}
