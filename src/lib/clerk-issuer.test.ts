import assert from 'node:assert/strict';
import { test } from 'node:test';
import { clerkIssuer } from './clerk-issuer.ts';

test('the issuer is the host that the publishable key holds', () => {
  assert.equal(clerkIssuer('pk_test_Y2xlcmsuZXhhbXBsZS5jb20k'), 'https://clerk.example.com');
  assert.equal(
    clerkIssuer(`pk_live_${Buffer.from('calm-cat-7.clerk.accounts.dev$').toString('base64')}`),
    'https://calm-cat-7.clerk.accounts.dev',
  );
});
