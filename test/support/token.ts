import { signLocalToken } from '../../src/features/tenants/index.ts';
import { localSecret } from '../../src/platform/local-secrets.ts';

/** A session token of the local identity provider of that data folder, as `iora auth token` prints it. */
export function issueToken(dataDir: string, person: { email: string; org?: string; admin?: boolean }): Promise<string> {
  return signLocalToken(localSecret(dataDir, 'local-identity').secret, person);
}
