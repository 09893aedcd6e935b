import { createPublicKey } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { z } from 'zod';
import { TLS_PROBLEM, tlsModeOf } from './connection.ts';
import { parseRedisUrl } from './redis-address.ts';

/** The forms that settings have: each takes the text of a variable and says what is wrong with it, never the text itself. */

/** Shortest secret accepted where we cannot choose it ourselves: 256 bits. */
const SECRET_BYTES_MIN = 32;

export interface VersionedSecret {
  readonly version: number;
  readonly secret: Uint8Array;
}

/** 0 to 65535. */
export const port = z
  .string()
  .regex(/^\d{1,5}$/, 'must be a port number')
  .transform(Number)
  .pipe(z.int().min(0).max(65_535));

/** Digits only, within those bounds. */
export function wholeNumber(min: number, max: number) {
  return z
    .string()
    .regex(/^\d{1,12}$/, 'must be a whole number')
    .transform(Number)
    .pipe(z.int().min(min).max(max));
}

/** Items separated by commas, trimmed, empty ones left away. */
export const commaList = z.string().transform((text) =>
  text
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== ''),
);

/** `version:base64[,version:base64]`, newest first: the first writes, all of them read. */
export const versionedSecrets = z.string().transform((text, context): VersionedSecret[] => {
  const secrets: VersionedSecret[] = [];
  for (const part of text.split(',')) {
    const match = /^\s*([1-9]\d{0,5}):([A-Za-z0-9+/_-]+={0,2})\s*$/.exec(part);
    const secret = match?.[2] === undefined ? undefined : Buffer.from(match[2], 'base64');
    if (match === null || secret === undefined || secret.length < SECRET_BYTES_MIN) {
      context.addIssue(`must be version:base64[,version:base64] with at least ${SECRET_BYTES_MIN} bytes each`);
      return z.NEVER;
    }
    secrets.push({ version: Number(match[1]), secret });
  }
  if (new Set(secrets.map((item) => item.version)).size !== secrets.length) {
    context.addIssue('names the same version twice');
    return z.NEVER;
  }
  return secrets;
});

/** AES-256 takes keys of exactly this length. */
export const dataKeys = versionedSecrets.refine(
  (keys) => keys.every((key) => key.secret.length === SECRET_BYTES_MIN),
  `must be keys of exactly ${SECRET_BYTES_MIN} bytes`,
);

/** Addresses and CIDR ranges, as `node:net` reads them. */
export const addressRanges = commaList.refine(
  (ranges) => ranges.every(isAddressRange),
  'must be IP addresses or CIDR ranges, separated by commas',
);

function isAddressRange(range: string): boolean {
  const [address = '', prefix, ...rest] = range.split('/');
  const version = isIP(address);
  if (version === 0 || rest.length > 0) return false;
  return prefix === undefined || (/^\d{1,3}$/.test(prefix) && Number(prefix) <= (version === 4 ? 32 : 128));
}

const liveSources = ['coingecko', 'coinpaprika', 'coinmarketcap', 'cryptocompare', 'kraken', 'coinbase'];

/** Names of price sources; `simulated` stands alone. */
export const marketSources = commaList
  .refine(
    (names) => names.length > 0 && names.every((name) => name === 'simulated' || liveSources.includes(name)),
    `must name one or more of ${liveSources.join(', ')}, or simulated`,
  )
  .refine((names) => !names.includes('simulated') || names.length === 1, 'names simulated beside live sources')
  .refine((names) => new Set(names).size === names.length, 'names a source twice');

/** A URL that the driver takes, with TLS as it is offered here. */
export const postgresUrl = z.string().superRefine((text, context) => {
  const problem = postgresUrlProblem(text);
  if (problem !== undefined) context.addIssue(problem);
});

function postgresUrlProblem(text: string): string | undefined {
  if (!/^postgres(?:ql)?:\/\//.test(text)) return 'must start with postgres:// or postgresql://';
  if (!URL.canParse(text)) return 'is not a valid URL';
  if (tlsModeOf(text, false) === undefined) return TLS_PROBLEM;
  return undefined;
}

/** A file that can be read now; kept as its name. */
export const readableFile = z
  .string()
  .min(1)
  .superRefine((path, context) => {
    try {
      readFileSync(path);
    } catch (error) {
      context.addIssue(
        `names a file that cannot be read (${(error as NodeJS.ErrnoException).code ?? 'unknown error'})`,
      );
    }
  });

/** A secret with which a service signs its calls. */
export interface ServiceSecret {
  /** Name of the service. */
  readonly service: string;
  readonly keyId: string;
  readonly secret: Uint8Array;
}

/** Two secrets a service: the one in use and the one that replaces it. */
const SECRETS_PER_SERVICE_MAX = 2;

/** `name:keyId:base64[,...]`; key ids are unique over all services. */
export const serviceSecrets = z.string().transform((text, context): ServiceSecret[] => {
  const secrets: ServiceSecret[] = [];
  for (const part of text.split(',')) {
    const match = /^\s*([a-z][a-z0-9-]{0,39}):([A-Za-z0-9_-]{1,64}):([A-Za-z0-9+/_-]+={0,2})\s*$/.exec(part);
    const secret = match?.[3] === undefined ? undefined : Buffer.from(match[3], 'base64');
    if (match === null || secret === undefined || secret.length < SECRET_BYTES_MIN) {
      context.addIssue(`must be name:keyId:base64[,...] with at least ${SECRET_BYTES_MIN} bytes each`);
      return z.NEVER;
    }
    secrets.push({ service: match[1] ?? '', keyId: match[2] ?? '', secret });
  }
  if (new Set(secrets.map((item) => item.keyId)).size !== secrets.length) {
    context.addIssue('names the same key id twice');
    return z.NEVER;
  }
  for (const [service, own] of Map.groupBy(secrets, (item) => item.service)) {
    if (own.length <= SECRETS_PER_SERVICE_MAX) continue;
    context.addIssue(`gives ${service} more than ${SECRETS_PER_SERVICE_MAX} secrets`);
    return z.NEVER;
  }
  return secrets;
});

/**
 * Where callers reach the server, as clients spell it once they have parsed it: they name OAuth resources by it. Without a slash at
 * its end.
 */
export const publicUrl = z.string().transform((text, context): string => {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol) || url.username !== '' || url.password !== '') {
    context.addIssue('must be an http or https URL without a login');
    return z.NEVER;
  }
  if (url.search !== '' || url.hash !== '') {
    context.addIssue('must have no query and no fragment');
    return z.NEVER;
  }
  return url.href.replace(/\/+$/, '');
});

/** https, or http to this machine: what is fetched there decides who may sign in. No slash at its end is taken away. */
export const safeUrl = z
  .string()
  .max(255)
  .superRefine((text, context) => {
    if (!isSafeUrl(text)) context.addIssue('must be an https URL (http only to this machine) without query or login');
  });

/** Whether secrets and keys may travel to that address. */
export function isSafeUrl(text: string): boolean {
  if (!URL.canParse(text)) return false;
  const { protocol, hostname, username, password, search, hash } = new URL(text);
  if (username !== '' || password !== '' || search !== '' || hash !== '') return false;
  if (protocol === 'https:') return true;
  return (
    protocol === 'http:' && (hostname === 'localhost' || hostname === '[::1]' || /^127(?:\.\d+){3}$/.test(hostname))
  );
}

/**
 * A public key in PEM as Clerk shows it, brought into one form; line breaks may be written as \n, which is how most consoles
 * hand them on. Clerk's library reads no other size and exponent, without saying so.
 */
export const pemPublicKey = z.string().transform((text, context): string => {
  try {
    const key = createPublicKey(text.replaceAll('\\n', '\n').trim());
    const { modulusLength, publicExponent } = key.asymmetricKeyDetails ?? {};
    if (modulusLength === 2_048 && publicExponent === 65_537n) {
      return key.export({ type: 'spki', format: 'pem' }).toString();
    }
  } catch {
    // Said below, in the same words.
  }
  context.addIssue('must be an RSA public key of 2048 bits in PEM');
  return z.NEVER;
});

/** The four forms of address that the Redis client is opened with. */
export const redisUrl = z.string().superRefine((text, context) => {
  try {
    parseRedisUrl(text);
  } catch {
    context.addIssue(
      'must be redis://host:port/db, rediss://..., redis-sentinel://h:p,h:p/master or redis-cluster://h:p,h:p',
    );
  }
});
