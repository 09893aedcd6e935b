import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createGate } from './gate.ts';

test('no more run at once than may, the next wait in order, the rest is refused, and failures give their place back', async () => {
  const pass = createGate({ runningMax: 2, waitingMax: 2, refuse: () => new Error('full') });
  const started: number[] = [];
  const releases = new Map<number, (failed: boolean) => void>();
  const calls = [0, 1, 2, 3].map((index) =>
    pass(() => {
      started.push(index);
      return new Promise<number>((resolve, reject) => {
        releases.set(index, (failed) => (failed ? reject(new Error(`${index}`)) : resolve(index)));
      });
    }),
  );
  const refused = pass(() => Promise.resolve(4));
  await assert.rejects(refused, { message: 'full' });
  assert.deepEqual(started, [0, 1]);
  releases.get(0)?.(true);
  await assert.rejects(calls[0] ?? Promise.resolve(), { message: '0' });
  assert.deepEqual(started, [0, 1, 2]);
  releases.get(1)?.(false);
  releases.get(2)?.(false);
  await calls[2];
  assert.deepEqual(started, [0, 1, 2, 3]);
  releases.get(3)?.(false);
  assert.equal(await calls[3], 3);
  assert.equal(await pass(() => Promise.resolve(5)), 5);
});
