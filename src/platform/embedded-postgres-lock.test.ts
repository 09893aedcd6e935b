import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { EmbeddedPostgresError, lockHolder, processIdentity, takeLock } from './embedded-postgres-lock.ts';

const RACERS = 4;
const ROUNDS = 100;

function lockFile(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'iora-lock-'));
  t.after(() => rmSync(folder, { recursive: true }));
  return join(folder, 'postgres.lock');
}

/** A record as a crashed process leaves it: its pid now belongs to a process (this one) that started at another time. */
function deadRecord(token: string): string {
  return JSON.stringify({ token, pid: process.pid, startedAt: 'another time', use: 'server' });
}

test('the lock is held until it is released, and its file of mode 0600 tells who has it', (t) => {
  const file = lockFile(t);
  const first = takeLock(file, 'server');
  assert.ok('lock' in first);
  first.lock.update({ port: 5432, postmasterPid: 17 });
  assert.equal(statSync(file).mode & 0o777, 0o600);
  const record = lockHolder(file);
  assert.equal(record?.pid, process.pid);
  assert.equal(record?.port, 5432);
  assert.equal(record?.postmasterPid, 17);
  assert.deepEqual(takeLock(file, 'command'), { holder: record });
  first.lock.release();
  assert.equal(lockHolder(file), undefined);
  const second = takeLock(file, 'command');
  assert.ok('lock' in second);
  first.lock.release();
  assert.equal(lockHolder(file)?.token, second.lock.token, 'a late release leaves the next holder alone');
});

test('a lock whose file was removed is not written again', (t) => {
  const file = lockFile(t);
  const taken = takeLock(file, 'server');
  assert.ok('lock' in taken);
  rmSync(file);
  assert.throws(() => taken.lock.update({ port: 1 }), EmbeddedPostgresError);
});

test('the lock of a process that ended is taken, also when another process has its pid now', (t) => {
  const file = lockFile(t);
  writeFileSync(file, deadRecord('dead'));
  assert.equal(lockHolder(file), undefined);
  assert.ok('lock' in takeLock(file, 'server'));
});

test('a damaged lock file is named, not overwritten', (t) => {
  const file = lockFile(t);
  writeFileSync(file, '{"pid":');
  assert.throws(() => takeLock(file, 'server'), new RegExp(`EmbeddedPostgresError: The lock file ${file} is damaged`));
  assert.equal(readFileSync(file, 'utf8'), '{"pid":');
});

test(`of ${RACERS} racing for a dead lock exactly one gets it, ${ROUNDS} times`, async (t) => {
  const file = lockFile(t);
  const barrier = new Int32Array(new SharedArrayBuffer(4));
  const script = new URL('../../test/support/embedded-postgres-lock-worker.ts', import.meta.url);
  const racers = Array.from({ length: RACERS }, () => new Worker(script, { workerData: { barrier, racers: RACERS } }));
  t.after(() => Promise.all(racers.map((racer) => racer.terminate())));
  for (let round = 0; round < ROUNDS; round++) {
    rmSync(file, { force: true });
    // No lock; a dead one; a dead one whose first and second successors died while they were taking over.
    if (round % 3 > 0) writeFileSync(file, deadRecord('dead'));
    if (round % 3 > 1) writeFileSync(`${file}.dead`, deadRecord('successor'));
    if (round % 3 > 1) writeFileSync(`${file}.dead.successor`, deadRecord('second'));
    const results = Promise.all(racers.map(async (racer) => (await once(racer, 'message'))[0] as boolean));
    for (const racer of racers) racer.postMessage(file);
    assert.deepEqual((await results).filter(Boolean), [true], `round ${round}`);
    assert.equal(lockHolder(file)?.pid, process.pid);
  }
  assert.ok('holder' in takeLock(file, 'server'));
  const left = readdirSync(join(file, '..')).filter((name) => name.startsWith('.draft-'));
  assert.deepEqual(left, []);
});

for (const platform of ['linux', 'darwin'] as const) {
  test(`a process is recognised until it ends (the way of ${platform})`, async () => {
    const child = spawn(process.execPath, ['-e', 'process.stdin.resume()'], { stdio: ['pipe', 'ignore', 'ignore'] });
    const pid = child.pid ?? 0;
    const identity = processIdentity(pid, platform);
    assert.ok(identity);
    assert.equal(processIdentity(pid, platform), identity);
    child.stdin?.end();
    await once(child, 'exit');
    assert.equal(processIdentity(pid, platform), undefined);
  });
}
