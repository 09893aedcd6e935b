import assert from 'node:assert/strict';
import { test } from 'node:test';
import { clerkIssuer } from './clerk-issuer.ts';

const keyOf = (text: string) => `pk_test_${Buffer.from(text).toString('base64')}`;

test('the issuer is the host in the publishable key', () => {
  assert.equal(clerkIssuer(keyOf('happy-cat-1.clerk.accounts.dev$')), 'https://happy-cat-1.clerk.accounts.dev');
  assert.equal(clerkIssuer('pk_live_Y2xlcmsuZXhhbXBsZS5jb20k'), 'https://clerk.example.com');
  assert.equal(clerkIssuer(keyOf('127.0.0.1:8080$')), 'https://127.0.0.1:8080');
});

test('a key without a host is refused', () => {
  const wrong = [
    '',
    'pk_test_',
    'sk_test_Y2xlcmsk',
    keyOf('clerk.example.com'),
    keyOf('$'),
    keyOf('a.b/c$'),
    keyOf('a@b$'),
  ];
  for (const key of wrong) assert.throws(() => clerkIssuer(key), RangeError, key);
});
