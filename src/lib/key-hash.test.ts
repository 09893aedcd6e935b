import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hashKey } from './key-hash.ts';

test('is HMAC-SHA-256 (RFC 4231, test case 2)', () => {
  assert.equal(
    hashKey('what do ya want for nothing?', Buffer.from('Jefe')).toString('hex'),
    '5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843',
  );
});

test('another key or another pepper gives another hash', () => {
  const pepper = Buffer.alloc(32, 1);
  const hash = hashKey('key', pepper);
  assert.deepEqual(hashKey('key', pepper), hash);
  assert.notDeepEqual(hashKey('kez', pepper), hash);
  assert.notDeepEqual(hashKey('key', Buffer.alloc(32, 2)), hash);
});
