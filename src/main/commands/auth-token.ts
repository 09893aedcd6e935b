import { signLocalToken } from '../../features/tenants/local-token.ts';
import { openLog } from '../../platform/log.ts';
import type { Answer, Given } from '../../transports/cli/command-spec.ts';
import { hasIdentityProvider, localIdentitySecret } from '../secrets.ts';
import { loadCommandConfig } from './command-config.ts';
import { readPerson } from './person.ts';

/** `iora auth token`: a session of the local identity provider. Needs the installation's secret and no database. */
export async function token({ options }: Given): Promise<Answer> {
  const person = readPerson(options.get('user'), options.get('org'));
  const config = loadCommandConfig();
  const log = openLog(config.LOG_LEVEL);
  try {
    const secret = localIdentitySecret(config, log);
    if (secret === null) {
      // Loaded only here: it brings the database driver along, which takes longer than all the rest.
      const { AppError } = await import('../../kernel/errors.ts');
      throw new AppError(
        'forbidden',
        hasIdentityProvider(config)
          ? 'There is no local identity provider beside Clerk or an OIDC issuer: take a token of the one that is set up.'
          : 'Production mode has no local identity provider: set up Clerk or an OIDC issuer.',
      );
    }
    const signed = await signLocalToken(secret, { ...person, admin: options.has('admin') });
    return { output: { token: signed }, text: `${signed}\n` };
  } finally {
    log.flush();
  }
}
