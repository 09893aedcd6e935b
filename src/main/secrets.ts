import type { Config } from '../platform/config.ts';
import type { VersionedSecret } from '../platform/config-values.ts';
import { localSecret } from '../platform/local-secrets.ts';
import type { Log } from '../platform/log.ts';

export interface Secrets {
  readonly peppers: readonly [VersionedSecret, ...VersionedSecret[]];
  readonly dataKeys: readonly [VersionedSecret, ...VersionedSecret[]];
  /** Signs tokens of the local identity provider; null where there is none. */
  readonly localIdentity: Uint8Array | null;
}

/** The secrets from the configuration; development makes the missing ones below IORA_DATA_DIR and says so. */
export function loadSecrets(config: Config, log: Log): Secrets {
  const made = (name: LocalSecret) => madeHere(config, log, name);
  const versioned = (
    configured: VersionedSecret[] | undefined,
    name: LocalSecret,
  ): readonly [VersionedSecret, ...VersionedSecret[]] => {
    const [first, ...older] = configured ?? [];
    return first === undefined ? [{ version: 1, secret: made(name) }] : [first, ...older];
  };
  return {
    peppers: versioned(config.KEY_PEPPER, 'key-pepper'),
    dataKeys: versioned(config.DATA_KEYS, 'data-keys'),
    localIdentity: localIdentitySecret(config, log),
  };
}

/** Whether people sign in with Clerk or an OIDC issuer; then the local provider does not exist. */
export function hasIdentityProvider(config: Config): boolean {
  return config.OIDC_ISSUER !== undefined || config.CLERK_PUBLISHABLE_KEY !== undefined;
}

/** Signs tokens of the local identity provider; null in production and beside another provider, where there is none. */
export function localIdentitySecret(config: Config, log: Log): Uint8Array | null {
  if (config.IORA_MODE === 'production' || hasIdentityProvider(config)) return null;
  return madeHere(config, log, 'local-identity');
}

type LocalSecret = 'key-pepper' | 'data-keys' | 'local-identity';

/** What somebody should know about a secret that was just made. */
const notes: Readonly<Record<LocalSecret, { level: 'info' | 'warn'; text: string }>> = {
  'key-pepper': {
    level: 'warn',
    text: 'KEY_PEPPER is not set, so one was made for this installation: back it up, for without it no API key can be verified',
  },
  'data-keys': {
    level: 'warn',
    text: 'DATA_KEYS is not set, so one was made for this installation: back it up, for without it no email can be read',
  },
  'local-identity': {
    level: 'info',
    text: 'a secret was made that signs development tokens: it needs no backup, but without it those tokens end',
  },
};

function madeHere(config: Config, log: Log, name: LocalSecret): Uint8Array {
  const { secret, file, made } = localSecret(config.IORA_DATA_DIR, name);
  const { level, text } = notes[name];
  if (made) log[level]({ file }, text);
  return secret;
}
