import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { checkHostAndOrigin } from './host-and-origin.ts';

const allowed = { hosts: ['iora.example', 'other.example:8443'], origins: ['https://app.example'] };
const check = (host?: string, origin?: string) => checkHostAndOrigin({ host, origin }, allowed);

describe('checkHostAndOrigin', () => {
  it('lets pass what names this server, or this machine', () => {
    for (const host of [
      'iora.example',
      'IORA.example:7145',
      'other.example:8443',
      'localhost',
      '127.0.0.1:1',
      '[::1]:7145',
    ]) {
      assert.equal(check(host), null, host);
    }
  });

  it('refuses every other host', () => {
    const refused = [
      'evil.example',
      'other.example',
      'other.example:1',
      'iora.example.evil.example',
      'localhost.evil.example',
    ];
    for (const host of refused) assert.match(check(host) ?? '', /does not answer for the host/, host);
  });

  it('refuses what is no host', () => {
    const malformed = [
      undefined,
      '',
      'evil.example@localhost',
      'localhost/x',
      'localhost:123456',
      'localhost:',
      '[::1',
      'a b',
    ];
    for (const host of malformed) assert.match(check(host) ?? '', /missing or malformed/, String(host));
  });

  it('lets a page of the same host, of this machine, or of the list call', () => {
    assert.equal(check('iora.example', 'https://iora.example'), null);
    assert.equal(check('iora.example:7145', 'http://IORA.example:7145'), null);
    assert.equal(check('127.0.0.1:7145', 'http://localhost:3000'), null);
    assert.equal(check('iora.example', 'https://App.example'), null);
  });

  it('refuses every other page', () => {
    assert.match(check('127.0.0.1:7145', 'http://evil.example') ?? '', /may not call/);
    assert.match(check('127.0.0.1:7145', 'http://evil.example:7145') ?? '', /may not call/);
    assert.match(check('iora.example', 'http://localhost:3000') ?? '', /may not call/);
    assert.match(check('iora.example', 'http://app.example') ?? '', /may not call/);
    assert.match(check('iora.example', 'https://iora.example:1') ?? '', /may not call/);
    for (const origin of ['null', '', 'iora.example', 'file://', 'https://evil.example@iora.example']) {
      assert.match(check('iora.example', origin) ?? '', /Origin header is malformed/, origin);
    }
  });

  it('finds words for whatever is sent, and lets nothing pass that holds no allowed name', () => {
    fc.assert(
      fc.property(fc.string(), fc.option(fc.string(), { nil: undefined }), (host, origin) => {
        fc.pre(!/iora|other|localhost|127\.0\.0\.1|::1/i.test(host));
        assert.equal(typeof check(host, origin), 'string');
      }),
    );
  });
});
