/**
 * A thread that races for a lock file: waits at the barrier for the others, tries once, tells whether it got the lock, and
 * keeps it until the round is over.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { takeLock } from '../../src/platform/embedded-postgres-lock.ts';

const { barrier, racers } = workerData as { barrier: Int32Array; racers: number };

parentPort?.on('message', (file: string) => {
  const arrived = Atomics.add(barrier, 0, 1) + 1;
  const goal = Math.ceil(arrived / racers) * racers;
  if (arrived === goal) Atomics.notify(barrier, 0);
  for (let seen = arrived; seen < goal; seen = Atomics.load(barrier, 0)) Atomics.wait(barrier, 0, seen);
  parentPort?.postMessage('lock' in takeLock(file, 'server'));
});
