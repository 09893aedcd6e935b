import { createPublicKey, type JsonWebKeyInput, type KeyObject } from 'node:crypto';
import { TimeoutStrategy, timeout } from 'cockatiel';
import { z } from 'zod';
import type { Log } from './log.ts';

/**
 * The public keys of an issuer of tokens: fetched, kept, refreshed beside the calls, never for a call whose key is known. An
 * issuer that is away is not noticed by those who hold tokens of keys that are kept.
 */
export interface SigningKeys {
  /**
   * The key of that name, null where the issuer has none. A token without a name is verified by the only key there is.
   * Throws SigningKeysUnavailableError while nothing is kept, or the name is unknown, and the issuer cannot be asked.
   */
  find(kid: string | undefined): Promise<SigningKey | null>;
  /** Begins to fetch; nobody waits for it, and what goes wrong is logged. */
  prime(): void;
}

export interface SigningKey {
  readonly key: KeyObject;
  /** The same as SPKI in PEM. */
  readonly pem: string;
  /** JWS algorithms (RFC 7518, RFC 8037) that it may verify: asymmetric ones only, and only those of its kind. */
  readonly algorithms: readonly string[];
}

/** The issuer could not be asked for its keys, and what is kept does not do. */
export class SigningKeysUnavailableError extends Error {
  constructor() {
    super('the signing keys of the issuer cannot be fetched');
    this.name = 'SigningKeysUnavailableError';
  }
}

export interface SigningKeysParts {
  /** Named in the log. */
  readonly issuer: string;
  /** Answers a JWK Set (RFC 7517), unchecked. Given up after FETCH_TIMEOUT_MS, whether or not it heeds the signal. */
  readonly fetchKeys: (signal: AbortSignal) => Promise<unknown>;
  readonly log: Log;
  readonly monotonicMs: () => number;
}

/** A key that the issuer takes back is refused after this long, on an instance that is being called. */
export const SIGNING_KEYS_FRESH_MS = 10 * 60_000;
/** Whoever has not been called for this long asks before it believes what it kept, unless the issuer is away. */
const SIGNING_KEYS_IDLE_MS = 2 * SIGNING_KEYS_FRESH_MS;
/** Longest time that kept keys are used without hearing from the issuer: an outage is over by then, or somebody has to act. */
export const SIGNING_KEYS_KEPT_MS = 24 * 60 * 60_000;
/** Names of keys that are not known are asked for this often at most, however many tokens with made-up names arrive. */
export const UNKNOWN_KEY_PAUSE_MS = 30_000;
/** Pause between questions to an issuer that is away while there are no keys at all: callers are told to come back in 2 s. */
const NOTHING_KEPT_PAUSE_MS = 2_000;
/** Issuers answer within a second. */
const FETCH_TIMEOUT_MS = 5_000;
/** Issuers have two or three. */
const KEYS_MAX = 100;
const RSA_BITS_MIN = 2_048;

interface Kept {
  readonly keys: readonly (SigningKey & { readonly kid: string | undefined })[];
  readonly fetchedAtMs: number;
}

/** Keeps the keys of one issuer; holds none until it is primed or asked. */
export function createSigningKeys({ issuer, fetchKeys, log, monotonicMs }: SigningKeysParts): SigningKeys {
  // Aggressive: a fetch that ignores its signal is given up all the same.
  const bounded = timeout(FETCH_TIMEOUT_MS, TimeoutStrategy.Aggressive);
  let kept: Kept | undefined;
  let running: Promise<void> | undefined;
  let failing = false;
  let retryAtMs = Number.NEGATIVE_INFINITY;
  let unknownAskedAtMs = Number.NEGATIVE_INFINITY;

  async function fetchOnce(): Promise<void> {
    const fetchedAtMs = monotonicMs();
    try {
      kept = { keys: readKeys(await bounded.execute(({ signal }) => fetchKeys(signal))), fetchedAtMs };
      failing = false;
    } catch (err) {
      failing = true;
      retryAtMs = monotonicMs() + (kept === undefined ? NOTHING_KEPT_PAUSE_MS : UNKNOWN_KEY_PAUSE_MS);
      log.warn({ err, issuer }, 'the signing keys of an identity provider could not be fetched');
    }
  }

  /** One fetch at a time, which everybody who needs it shares. Never rejects. */
  function refresh(): Promise<void> {
    running ??= fetchOnce().finally(() => {
      running = undefined;
    });
    return running;
  }

  /** The same, unless a fetch has just failed. */
  async function refreshUnlessAway(): Promise<void> {
    if (running !== undefined || monotonicMs() >= retryAtMs) await refresh();
  }

  function named(kid: string | undefined): SigningKey | null {
    const keys = kept?.keys ?? [];
    if (kid === undefined) return keys.length === 1 ? (keys[0] ?? null) : null;
    return keys.find((key) => key.kid === kid) ?? null;
  }

  async function askForUnknown(): Promise<void> {
    const nowMs = monotonicMs();
    if (running === undefined) {
      if (nowMs < unknownAskedAtMs + UNKNOWN_KEY_PAUSE_MS) return;
      unknownAskedAtMs = nowMs;
    }
    await refresh();
  }

  return {
    async find(kid) {
      if (kept !== undefined && monotonicMs() - kept.fetchedAtMs >= SIGNING_KEYS_KEPT_MS) kept = undefined;
      if (kept === undefined) {
        await refreshUnlessAway();
        if (kept === undefined) throw new SigningKeysUnavailableError();
      }
      const ageMs = monotonicMs() - kept.fetchedAtMs;
      if (ageMs >= SIGNING_KEYS_FRESH_MS) {
        const refreshed = refreshUnlessAway();
        if (ageMs >= SIGNING_KEYS_IDLE_MS && !failing) await refreshed;
      }
      const key = named(kid);
      if (key !== null || kid === undefined) return key;
      await askForUnknown();
      const found = named(kid);
      // It may well be a new key of the issuer's, so the token is not called wrong.
      if (found === null && failing) throw new SigningKeysUnavailableError();
      return found;
    },
    prime() {
      void refresh();
    },
  };
}

const keySetSchema = z.object({ keys: z.array(z.unknown()).max(KEYS_MAX) });

/** What is looked at before node judges the key itself. */
const keySchema = z.looseObject({
  kty: z.enum(['RSA', 'EC', 'OKP']),
  kid: z.string().max(255).optional(),
  alg: z.string().optional(),
  use: z.literal('sig').optional(),
  key_ops: z.array(z.string()).optional(),
});

/** The keys that can verify; others an issuer may publish beside them. Throws where there is none. */
function readKeys(answer: unknown): Kept['keys'] {
  const keys = keySetSchema.parse(answer).keys.flatMap((candidate) => {
    const parsed = keySchema.safeParse(candidate);
    if (!parsed.success || parsed.data.key_ops?.includes('verify') === false) return [];
    const key = toKeyObject(candidate as JsonWebKeyInput['key']);
    if (key === null) return [];
    const { kid, alg } = parsed.data;
    const algorithms = algorithmsOf(key).filter((algorithm) => alg === undefined || algorithm === alg);
    if (algorithms.length === 0) return [];
    return [{ kid, key, algorithms, pem: key.export({ type: 'spki', format: 'pem' }).toString() }];
  });
  if (keys.length === 0) throw new Error('the issuer answered without a key that can verify tokens');
  return keys;
}

function toKeyObject(key: JsonWebKeyInput['key']): KeyObject | null {
  try {
    return createPublicKey({ key, format: 'jwk' });
  } catch {
    return null;
  }
}

const CURVE_ALGORITHMS: Readonly<Record<string, string>> = {
  prime256v1: 'ES256',
  secp384r1: 'ES384',
  secp521r1: 'ES512',
};

function algorithmsOf({ asymmetricKeyType, asymmetricKeyDetails }: KeyObject): readonly string[] {
  if (asymmetricKeyType === 'rsa') {
    if ((asymmetricKeyDetails?.modulusLength ?? 0) < RSA_BITS_MIN) return [];
    return ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512'];
  }
  if (asymmetricKeyType === 'ec') {
    const algorithm = CURVE_ALGORITHMS[asymmetricKeyDetails?.namedCurve ?? ''];
    return algorithm === undefined ? [] : [algorithm];
  }
  return asymmetricKeyType === 'ed25519' ? ['EdDSA', 'Ed25519'] : [];
}
