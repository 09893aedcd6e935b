import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connectionProblem } from './database-start.ts';

test('a certificate of an unknown authority is told with the setting that names one, other failures as they are', () => {
  const failure = (message: string, code: string) => Object.assign(new Error(message), { code });
  for (const code of ['UNABLE_TO_VERIFY_LEAF_SIGNATURE', 'SELF_SIGNED_CERT_IN_CHAIN', 'DEPTH_ZERO_SELF_SIGNED_CERT']) {
    assert.match(connectionProblem(failure('self-signed certificate', code)), /set DATABASE_CA_FILE/);
  }
  assert.equal(connectionProblem(failure('certificate has expired', 'CERT_HAS_EXPIRED')), 'certificate has expired');
  assert.equal(connectionProblem(failure('', 'ECONNREFUSED')), 'ECONNREFUSED');
});
