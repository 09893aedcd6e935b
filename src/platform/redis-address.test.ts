import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseRedisUrl } from './redis-address.ts';

const plain = { master: null, login: undefined, password: undefined, db: 0, tls: false };

test('every form of address is read, with login, password and database', () => {
  assert.deepEqual(parseRedisUrl('redis://h'), { ...plain, kind: 'single', hosts: [{ host: 'h', port: 6_379 }] });
  assert.deepEqual(parseRedisUrl('rediss://me:p%40:ss@[::1]:7/3'), {
    ...plain,
    kind: 'single',
    hosts: [{ host: '::1', port: 7 }],
    login: 'me',
    password: 'p@:ss',
    db: 3,
    tls: true,
  });
  assert.deepEqual(parseRedisUrl('redis://:secret@h:1/?enableOfflineQueue=true'), {
    ...plain,
    kind: 'single',
    hosts: [{ host: 'h', port: 1 }],
    password: 'secret',
  });
  assert.deepEqual(parseRedisUrl('redis-sentinel://:p@a,b:2/the%20master?db=4'), {
    ...plain,
    kind: 'sentinel',
    hosts: [
      { host: 'a', port: 26_379 },
      { host: 'b', port: 2 },
    ],
    master: 'the master',
    password: 'p',
    db: 4,
  });
  assert.deepEqual(parseRedisUrl('redis-cluster://a:1,b:2/'), {
    ...plain,
    kind: 'cluster',
    hosts: [
      { host: 'a', port: 1 },
      { host: 'b', port: 2 },
    ],
  });
});

test('what is no address is refused without being repeated', () => {
  const wrong = [
    'http://h',
    'redis:/h',
    'redis://',
    'redis://h:secret',
    'redis://h secret',
    'redis://h/secret',
    'redis://:%@secret',
    'redis-sentinel://secret:1',
    'redis-sentinel://secret:1/',
    'redis-cluster://secret:1/2',
    'redis-cluster://secret:1?db=1',
    'redis-cluster://secret:1,,b:1',
  ];
  for (const url of wrong) {
    assert.throws(
      () => parseRedisUrl(url),
      (error: Error) => !error.message.includes('secret'),
      url,
    );
  }
});
