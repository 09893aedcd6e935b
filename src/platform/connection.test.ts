import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { parseConnection } from './connection.ts';

let folder: string;
let authority: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'iora-connection-'));
  authority = join(folder, 'ca.pem');
  await writeFile(authority, 'a certificate');
});
after(() => rm(folder, { recursive: true }));

test('TLS is used when asked for or when an authority is given, and then always verified', () => {
  const url = 'postgres://u@h/d';
  const verified = { rejectUnauthorized: true };
  assert.deepEqual(parseConnection(url), { url, ssl: false });
  assert.deepEqual(parseConnection(`${url}?sslmode=disable`, authority), { url, ssl: false });
  assert.deepEqual(parseConnection(`${url}?sslmode=require`), { url, ssl: verified });
  assert.deepEqual(parseConnection(`${url}?sslmode=verify-full`), { url, ssl: verified });
  assert.deepEqual(parseConnection(url, authority), { url, ssl: { ...verified, ca: 'a certificate' } });
});

test('no parameter of the URL reaches the driver that would weaken TLS', () => {
  const weakening = 'sslrootcert=x&sslcert=y&sslkey=z&uselibpqcompat=true&sslmode=verify-full&application_name=a';
  assert.deepEqual(parseConnection(`postgres://u@h/d?${weakening}`), {
    url: 'postgres://u@h/d?application_name=a',
    ssl: { rejectUnauthorized: true },
  });
});

test('a mode that is not offered is refused without repeating the URL', () => {
  const others = ['sslmode=prefer', 'sslmode=verify-ca', 'sslmode=', 'sslmode=hidden-word', 'ssl=true'];
  for (const asked of [...others, 'ssl=0&sslmode=verify-full']) {
    assert.throws(() => parseConnection(`postgres://u:hidden-word@h/d?${asked}`), {
      message:
        'the database URL asks for TLS in a way that is not supported: use sslmode=verify-full, or sslmode=disable',
    });
  }
});
