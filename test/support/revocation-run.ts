// Revocations under load, and with the buses cut off: what test/revocation.test.ts and the soak both run.
import { randomInt } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import { createKey, type Instances, isAdmitted, type Revoked, revokeKey } from './revocation-instances.ts';
import type { ServerProcess } from './server-process.ts';

export interface RevocationRun {
  readonly rounds: number;
  /** Calls with keys that were revoked, on all servers. */
  readonly calls: number;
  /** Calls sent after the revocation was answered that were admitted nonetheless: must be 0. */
  readonly admittedAfterAnswer: number;
  /** Rounds in which the answer named fewer than all: must be 0. */
  readonly notEverywhere: number;
  /** Calls with a key that nobody revoked, and how many of them were refused: must be 0. */
  readonly otherCalls: number;
  readonly otherRefused: number;
  /** What each answer said: from commit until all had acknowledged. */
  readonly ms: readonly number[];
  /**
   * From sending the revocation until the first refusal was received, for each server of each round: holds the whole
   * transaction and the way of both answers.
   */
  readonly refusedAfterMs: readonly number[];
}

/** Calls under way at once with the key to be revoked, on each server. */
const CALLERS = 2;
/** Calls each server must have answered before the revocation, so that it remembers the key, and after it. */
const CALLS_BEFORE = 5;
const CALLS_AFTER = 10;
const ROUND_MAX_MS = 30_000;

/**
 * Revokes a fresh key in each round, on a server chosen at random, while every server is called with it and with another one.
 * All times are of this one process's clock.
 */
export async function revokeUnderLoad(instances: Instances, rounds: number): Promise<RevocationRun> {
  const other = await createKey(instances, pick(instances));
  const total = { calls: 0, admittedAfterAnswer: 0, notEverywhere: 0, otherCalls: 0, otherRefused: 0 };
  const ms: number[] = [];
  const refusedAfterMs: number[] = [];
  const stopOther = new AbortController();
  const others = instances.servers.map(async (server) => {
    while (!stopOther.signal.aborted) {
      total.otherCalls += 1;
      if (!(await isAdmitted(server, other.key))) total.otherRefused += 1;
    }
  });
  // Waited for in the end; one that fails earlier must not end the process.
  for (const calling of others) calling.catch(() => undefined);
  try {
    for (let round = 0; round < rounds; round += 1) {
      const seen = await revokeOne(instances);
      total.calls += seen.calls;
      total.admittedAfterAnswer += seen.admittedAfterAnswer;
      total.notEverywhere += Number(
        seen.answer.effectiveOn !== instances.servers.length || seen.answer.of !== seen.answer.effectiveOn,
      );
      ms.push(seen.answer.ms);
      refusedAfterMs.push(...seen.refusedAfterMs);
    }
  } finally {
    stopOther.abort();
  }
  await Promise.all(others);
  return { rounds, ...total, ms, refusedAfterMs };
}

async function revokeOne(instances: Instances) {
  const { id, key } = await createKey(instances, pick(instances));
  const tally = instances.servers.map(() => ({ before: 0, after: 0, refusedAtMs: Number.POSITIVE_INFINITY }));
  const stop = AbortSignal.timeout(ROUND_MAX_MS);
  let answeredAtMs = Number.POSITIVE_INFINITY;
  let calls = 0;
  let admittedAfterAnswer = 0;
  const isWarm = Promise.withResolvers<void>();

  async function call(server: ServerProcess, seen: (typeof tally)[number]): Promise<void> {
    while (!stop.aborted && seen.after < CALLS_AFTER) {
      const sentAtMs = performance.now();
      const admitted = await isAdmitted(server, key);
      calls += 1;
      if (!admitted) seen.refusedAtMs = Math.min(seen.refusedAtMs, performance.now());
      if (sentAtMs > answeredAtMs) {
        seen.after += 1;
        if (admitted) admittedAfterAnswer += 1;
      } else if (admitted) seen.before += 1;
      if (tally.every(({ before }) => before >= CALLS_BEFORE)) isWarm.resolve();
    }
    isWarm.reject(new Error('the round did not end in time'));
  }
  const callers = instances.servers.flatMap((server, index) => {
    const seen = tally[index];
    return seen === undefined ? [] : Array.from({ length: CALLERS }, () => call(server, seen));
  });
  for (const caller of callers) caller.catch(isWarm.reject);
  await isWarm.promise;
  const sentAtMs = performance.now();
  const answer = await revokeKey(instances, pick(instances), id);
  answeredAtMs = performance.now();
  await Promise.all(callers);
  return { answer, calls, admittedAfterAnswer, refusedAfterMs: tally.map(({ refusedAtMs }) => refusedAtMs - sentAtMs) };
}

export interface CutOff {
  readonly answer: Revoked;
  /** From the answer until the instance that was cut off refused the key. */
  readonly refusedAfterMs: number;
}

/** Cuts LISTEN of the last server off, then revokes on the first a key that all remember. */
export async function revokeUnheard(instances: Instances, mode: 'blackhole' | 'reset'): Promise<CutOff> {
  const { servers, listenOfLast } = instances;
  const [first, last] = [at(servers, 0), at(servers, -1)];
  const { id, key } = await createKey(instances, first);
  for (const server of servers) if (!(await isAdmitted(server, key))) throw new Error('a new key was refused');
  listenOfLast.set(mode);
  const answer = await revokeKey(instances, first, id);
  const answeredAtMs = performance.now();
  for (const server of servers.slice(0, -1)) {
    if (await isAdmitted(server, key)) throw new Error('one that was told admitted the key');
  }
  while (await isAdmitted(last, key)) {
    if (performance.now() - answeredAtMs > ROUND_MAX_MS) throw new Error('the key was never refused');
    await pause(POLL_MS);
  }
  const refusedAfterMs = performance.now() - answeredAtMs;
  listenOfLast.set('pass');
  await revokedEverywhere(instances);
  return { answer, refusedAfterMs };
}

const POLL_MS = 20;

/** Revokes fresh keys until that is known to hold everywhere: all servers listen again. */
async function revokedEverywhere(instances: Instances): Promise<void> {
  const endsAtMs = performance.now() + ROUND_MAX_MS;
  for (;;) {
    const { id } = await createKey(instances, at(instances.servers, 0));
    const { effectiveOn, of } = await revokeKey(instances, at(instances.servers, 0), id);
    if (effectiveOn === of) return;
    if (performance.now() > endsAtMs) throw new Error('an instance did not come back');
  }
}

/** Ends the last server with SIGKILL; answers the first revocation after it, and after how long it was not counted any more. */
export async function revokeAfterKill(instances: Instances): Promise<{ answer: Revoked; forgottenAfterMs: number }> {
  const first = at(instances.servers, 0);
  const { id } = await createKey(instances, first);
  await at(instances.servers, -1).stop('SIGKILL');
  const killedAtMs = performance.now();
  const answer = await revokeKey(instances, first, id);
  // Revoking again tells the news again.
  for (let again = answer; again.of === instances.servers.length; ) {
    if (performance.now() - killedAtMs > ROUND_MAX_MS) throw new Error('the dead one was counted for ever');
    again = await revokeKey(instances, first, id);
  }
  return { answer, forgottenAfterMs: performance.now() - killedAtMs };
}

function pick({ servers }: Instances): ServerProcess {
  return at(servers, randomInt(servers.length));
}

function at(servers: readonly ServerProcess[], index: number): ServerProcess {
  const server = servers.at(index);
  if (server === undefined) throw new Error('there is no such server');
  return server;
}
