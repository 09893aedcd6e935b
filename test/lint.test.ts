import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));

test('the linter finds a query nobody waits for', () => {
  const { stdout, status } = spawnSync(
    'node_modules/.bin/oxlint',
    ['--type-aware', 'test/fixtures/floating-promise.ts'],
    { cwd: root, encoding: 'utf8' },
  );
  assert.match(stdout, /no-floating-promises/);
  assert.equal(status, 1);
});
