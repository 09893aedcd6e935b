import assert from 'node:assert/strict';
import { test } from 'node:test';
import { clerkIssuerOf } from './clerk-publishable-key.ts';

const keyOf = (text: string, prefix = 'pk_test_') => `${prefix}${Buffer.from(text).toString('base64')}`;

test('a publishable key names the host that issues the tokens', () => {
  assert.equal(clerkIssuerOf(keyOf('happy-hippo-1.clerk.accounts.dev$')), 'https://happy-hippo-1.clerk.accounts.dev');
  assert.equal(clerkIssuerOf(keyOf('clerk.example.com$', 'pk_live_')), 'https://clerk.example.com');
  assert.equal(clerkIssuerOf(keyOf('clerk.example.com$').replace(/=+$/, '')), 'https://clerk.example.com');
});

test('what is no publishable key names nothing', () => {
  for (const key of [
    '',
    'pk_test_',
    'pk_other_Y2xlcmsuZXhhbXBsZS5jb20k',
    'pk_test_!!!!',
    keyOf('clerk.example.com'),
    keyOf('clerk.example.com$$'),
    keyOf('localhost$'),
    keyOf('https://clerk.example.com$'),
    keyOf('clerk.example.com/path$'),
    keyOf('clerk.example.com$', 'sk_test_'),
    `${keyOf('clerk.example.com$')}\n`,
  ]) {
    assert.equal(clerkIssuerOf(key), null, key);
  }
});
