import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { captureLog } from '../../test/support/captured-log.ts';
import { loadConfig } from '../platform/config.ts';
import { loadSecrets } from './secrets.ts';

let dataDir: string;
before(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'iora-secrets-'));
});
after(() => rm(dataDir, { recursive: true }));

test('development makes its secrets once, and says of each whether it must be backed up', async () => {
  const config = loadConfig({ IORA_DATA_DIR: dataDir });
  const log = captureLog();
  const made = loadSecrets(config, log);
  const said = log.lines();
  assert.equal(said.length, 3);
  assert.match(
    said[0] ?? '',
    /^warn KEY_PEPPER is not set.*back it up, for without it no API key.*secrets\/key-pepper"/,
  );
  assert.match(said[1] ?? '', /^warn DATA_KEYS is not set.*back it up, for without it no email.*secrets\/data-keys"/);
  assert.match(said[2] ?? '', /^info .*development tokens: it needs no backup.*secrets\/local-identity"/);
  for (const name of ['key-pepper', 'data-keys', 'local-identity']) {
    const text = (await readFile(join(dataDir, 'secrets', name), 'utf8')).trim();
    assert.equal(said.join('\n').includes(text), false, `${name} is not in the log`);
  }
  assert.deepEqual(loadSecrets(config, log), made);
  assert.equal(log.lines().length, 3);
});

test('production takes its secrets from the configuration and has no local identity', () => {
  const secret = Buffer.alloc(32, 7).toString('base64');
  const log = captureLog();
  const settings = { IORA_MODE: 'production', KEY_PEPPER: `2:${secret},1:${secret}`, DATA_KEYS: `1:${secret}` };
  const { peppers, dataKeys, localIdentity } = loadSecrets(loadConfig(settings), log);
  assert.deepEqual([peppers.map(({ version }) => version), dataKeys.length, localIdentity], [[2, 1], 1, null]);
  assert.deepEqual(log.lines(), []);
});
