import assert from 'node:assert/strict';
import { createHash, createHmac } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { isSignatureOf, type SignedCall, signCall, signedHeaders, stringToSign } from './service-signature.ts';

const secret = Buffer.alloc(32, 7);
const call: SignedCall = {
  timestamp: '1767225600',
  nonce: 'nonce-of-the-example',
  tenant: 'org_acme',
  method: 'POST',
  target: '/tools/get_price?a=b',
  body: '{"symbol":"BTC"}',
};

test('what is signed is seven lines in the published order, the last the hash of the raw body', () => {
  const body = createHash('sha256').update('{"symbol":"BTC"}').digest('hex');
  const text = `v1\n1767225600\nnonce-of-the-example\norg_acme\nPOST\n/tools/get_price?a=b\n${body}`;
  assert.equal(stringToSign(call), text);
  assert.equal(signCall(call, secret), createHmac('sha256', secret).update(text).digest('hex'));
  const empty = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855';
  assert.equal(stringToSign({ ...call, tenant: '', body: '' }).split('\n')[3], '');
  assert.equal(stringToSign({ ...call, tenant: '', body: '' }).split('\n')[6], empty);
});

test('a signature is that of one call under one secret, in hexadecimal digits of either case', () => {
  const signature = signCall(call, secret);
  assert.ok(isSignatureOf(call, secret, signature));
  assert.ok(isSignatureOf(call, secret, signature.toUpperCase()));
  assert.ok(isSignatureOf({ ...call, body: Buffer.from('{"symbol":"BTC"}') }, secret, signature));
  for (const name of ['timestamp', 'nonce', 'tenant', 'method', 'target', 'body'] as const) {
    assert.ok(!isSignatureOf({ ...call, [name]: `${call[name]} ` }, secret, signature), name);
  }
  assert.ok(!isSignatureOf(call, Buffer.alloc(32, 8), signature));
  for (const other of [
    '',
    signature.slice(1),
    `${signature}0`,
    ` ${signature.slice(1)}`,
    signature.replace(/./, 'g'),
  ]) {
    assert.ok(!isSignatureOf(call, secret, other), other);
  }
});

test('no two calls share what is signed', () => {
  const line = fc.stringMatching(/^[!-~]{0,12}$/);
  const calls = fc.record({ timestamp: line, nonce: line, tenant: line, method: line, target: line, body: line });
  fc.assert(
    fc.property(calls, calls, (one, other) => {
      const same = JSON.stringify(Object.entries(one).sort()) === JSON.stringify(Object.entries(other).sort());
      assert.equal(stringToSign(one) === stringToSign(other), same);
    }),
  );
});

test('headers made for a call verify it, each time under another nonce', () => {
  const request = { keyId: 'k1', secret, method: 'GET', target: '/health/database' };
  const headers = signedHeaders(request, 1_767_225_600_999);
  assert.deepEqual(Object.keys(headers), ['x-iora-key-id', 'x-iora-timestamp', 'x-iora-nonce', 'x-iora-signature']);
  assert.equal(headers['x-iora-timestamp'], '1767225600');
  assert.match(headers['x-iora-nonce'], /^[A-Za-z0-9_-]{24}$/);
  const { 'x-iora-timestamp': timestamp, 'x-iora-nonce': nonce } = headers;
  const made = { timestamp, nonce, tenant: '', method: 'GET', target: '/health/database', body: '' };
  assert.ok(isSignatureOf(made, secret, headers['x-iora-signature']));
  assert.notEqual(signedHeaders(request, 1_767_225_600_999)['x-iora-nonce'], nonce);
  assert.equal(signedHeaders({ ...request, tenant: 'org_a' }, 0)['x-iora-tenant'], 'org_a');
});
