import type { Config, VersionedSecret } from '../platform/config.ts';
import { localSecret } from '../platform/local-secrets.ts';
import type { Log } from '../platform/log.ts';

export interface Secrets {
  readonly peppers: readonly [VersionedSecret, ...VersionedSecret[]];
  readonly dataKeys: readonly [VersionedSecret, ...VersionedSecret[]];
  /** Signs tokens of the local identity provider; null in production, which has none. */
  readonly localIdentity: Uint8Array | null;
}

/** The secrets from the configuration; development makes the missing ones below IORA_DATA_DIR and says so. */
export function loadSecrets(config: Config, log: Log): Secrets {
  const made = (name: string) => madeHere(config, log, name);
  const versioned = (
    configured: VersionedSecret[] | undefined,
    name: string,
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

/** Signs tokens of the local identity provider; null in production, which has none. */
export function localIdentitySecret(config: Config, log: Log): Uint8Array | null {
  return config.IORA_MODE === 'production' ? null : madeHere(config, log, 'local-identity');
}

function madeHere(config: Config, log: Log, name: string): Uint8Array {
  const { secret, file, made } = localSecret(config.IORA_DATA_DIR, name);
  if (made) log.warn({ file }, `${name} was not configured, so one was made for this installation: back it up`);
  return secret;
}
