import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { resolve } from 'node:path';
import { z } from 'zod';
import { clerkIssuerOf } from '../lib/clerk-publishable-key.ts';
import {
  addressRanges,
  commaList,
  dataKeys,
  marketSources,
  pemPublicKey,
  port,
  postgresUrl,
  publicUrl,
  readableFile,
  redisUrl,
  safeUrl,
  serviceSecrets,
  versionedSecrets,
  wholeNumber,
} from './config-values.ts';
import { tlsModeOf } from './connection.ts';

/**
 * Every setting, once: its name in the environment, its form, its default, what it is for. `.env.example` and
 * docs/reference/configuration.md are generated from this schema.
 */

export interface SettingMeta {
  readonly section:
    | 'Server'
    | 'Data'
    | 'PostgreSQL'
    | 'Redis'
    | 'Secrets'
    | 'Identity'
    | 'Services'
    | 'Limits'
    | 'Market'
    | 'Observability';
  readonly description: string;
  /** Never printed, and may come from a file named by NAME_FILE. */
  readonly secret?: true;
  /** The default in words where it is not a constant. */
  readonly defaultNote?: string;
}

const described = <Schema extends z.ZodType>(schema: Schema, meta: SettingMeta): Schema => schema.meta({ ...meta });

export const configSchema = z.object({
  IORA_MODE: described(z.enum(['development', 'production']).default('development'), {
    section: 'Server',
    description:
      'production refuses unsafe settings by name: the local identity provider, missing or short secrets, a database login that may do more than its role, PostgreSQL without verified TLS.',
  }),
  HOST: described(z.string().min(1).default('127.0.0.1'), { section: 'Server', description: 'Address to listen on.' }),
  PORT: described(port.default(7145), { section: 'Server', description: 'Port to listen on; 0 takes a free one.' }),
  PUBLIC_URL: described(publicUrl.optional(), {
    section: 'Server',
    description: 'Address under which callers reach this server; used in links, and its host is accepted by /mcp.',
  }),
  TRUSTED_PROXIES: described(addressRanges.default([]), {
    section: 'Server',
    description: 'Addresses or CIDR ranges of proxies whose X-Forwarded-For is believed, comma-separated.',
    defaultNote: 'none',
  }),
  SHUTDOWN_DEADLINE_MS: described(wholeNumber(100, 600_000).default(15_000), {
    section: 'Server',
    description: 'Longest time that stopping may take; calls still running then are cut.',
  }),
  IORA_DATA_DIR: described(
    z
      .string()
      .min(1)
      .default('.iora')
      .transform((path) => resolve(path)),
    {
      section: 'Data',
      description: 'Folder of the embedded PostgreSQL and of the secrets that development mode makes for itself.',
      defaultNote: '.iora in the current folder',
    },
  ),
  DATABASE_URL: described(postgresUrl.optional(), {
    section: 'PostgreSQL',
    secret: true,
    description: 'PostgreSQL 15 to 18 that serves requests.',
    defaultNote: 'an embedded PostgreSQL 18 below IORA_DATA_DIR',
  }),
  DATABASE_MIGRATION_URL: described(postgresUrl.optional(), {
    section: 'PostgreSQL',
    secret: true,
    description: 'Login that runs migrations.',
    defaultNote: 'DATABASE_DIRECT_URL',
  }),
  DATABASE_DIRECT_URL: described(postgresUrl.optional(), {
    section: 'PostgreSQL',
    secret: true,
    description: 'Connection past any pooler, for LISTEN and migrations.',
    defaultNote: 'DATABASE_URL',
  }),
  DATABASE_CA_FILE: described(readableFile.optional(), {
    section: 'PostgreSQL',
    description: 'Certificate authority that the server certificate is verified against.',
  }),
  DATABASE_POOL_MIN: described(wholeNumber(0, 1_000).default(2), {
    section: 'PostgreSQL',
    description: 'Connections kept open.',
  }),
  DATABASE_POOL_MAX: described(wholeNumber(1, 1_000).default(10), {
    section: 'PostgreSQL',
    description: 'Connections at most.',
  }),
  DATABASE_CONNECTION_TIMEOUT: described(wholeNumber(50, 60_000).default(3_000), {
    section: 'PostgreSQL',
    description: 'Longest wait for a connection in ms; after it the caller gets 503.',
  }),
  DATABASE_STARTUP_TIMEOUT_MS: described(wholeNumber(0, 600_000).default(30_000), {
    section: 'PostgreSQL',
    description: 'How long a starting server waits for PostgreSQL before it gives up.',
  }),
  MIGRATE_ON_START: described(
    z
      .enum(['true', 'false'])
      .transform((text) => text === 'true')
      .optional(),
    {
      section: 'PostgreSQL',
      description: 'Whether `npm start` brings the schema up to date by itself.',
      defaultNote: 'true in development, false in production',
    },
  ),
  REDIS_URL: described(redisUrl.optional(), {
    section: 'Redis',
    secret: true,
    description:
      'Redis that instances share: redis://, rediss://, redis-sentinel://h:p,h:p/master or redis-cluster://h:p,h:p. Carries revocations beside PostgreSQL and keeps the nonces of signed calls.',
    defaultNote: 'none; PostgreSQL does both',
  }),
  REDIS_PREFIX: described(
    z
      .string()
      .regex(/^[A-Za-z0-9:_-]{1,64}$/, 'must be 1 to 64 letters, digits, : _ or -')
      .default('iora:'),
    { section: 'Redis', description: 'What every key and channel of this installation begins with.' },
  ),
  KEY_PEPPER: described(versionedSecrets.optional(), {
    section: 'Secrets',
    secret: true,
    description:
      'Pepper under which API keys are hashed, version:base64[,version:base64]; the first hashes new keys; versions count upwards.',
    defaultNote: 'development makes its own below IORA_DATA_DIR; production requires it',
  }),
  DATA_KEYS: described(dataKeys.optional(), {
    section: 'Secrets',
    secret: true,
    description: 'Keys that encrypt personal columns, same form; the first encrypts.',
    defaultNote: 'development makes its own below IORA_DATA_DIR; production requires it',
  }),
  OIDC_ISSUER: described(safeUrl.optional(), {
    section: 'Identity',
    description: 'Issuer of the tokens people sign in with, as its discovery document spells it.',
    defaultNote: 'none; development signs tokens itself',
  }),
  OIDC_AUDIENCE: described(commaList.refine((list) => list.length > 0, 'must name an audience').optional(), {
    section: 'Identity',
    description: 'Audiences a token of OIDC_ISSUER may be made for, comma-separated; required with it.',
    defaultNote: 'none',
  }),
  OIDC_ORG_CLAIM: described(z.string().min(1).max(200).default('org_id'), {
    section: 'Identity',
    description: 'Claim of OIDC_ISSUER that names the organization the person acts in.',
  }),
  OIDC_ROLE_CLAIM: described(z.string().min(1).max(200).default('org_role'), {
    section: 'Identity',
    description:
      'Claim that names the role there: owner, admin, member or viewer. Without it the first to come is owner, the others members.',
  }),
  CLERK_PUBLISHABLE_KEY: described(
    z
      .string()
      .max(400)
      .refine(
        (key) => clerkIssuerOf(key) !== null,
        'must be pk_test_ or pk_live_ and the base64 of a host, as the dashboard of Clerk shows it',
      )
      .optional(),
    { section: 'Identity', description: 'Publishable key of the Clerk instance; says who issues its tokens.' },
  ),
  CLERK_SECRET_KEY: described(
    z
      .string()
      .regex(/^sk_(?:test|live)_[A-Za-z0-9_-]{1,200}$/, 'must be sk_test_... or sk_live_...')
      .optional(),
    {
      section: 'Identity',
      secret: true,
      description:
        'Secret key of Clerk: fetches the signing keys where CLERK_JWT_KEY is not set, takes OAuth tokens, passes tiers on.',
    },
  ),
  CLERK_JWT_KEY: described(pemPublicKey.optional(), {
    section: 'Identity',
    secret: true,
    description: 'Public key (PEM) of the Clerk instance: tokens are verified without ever asking Clerk.',
    defaultNote: 'fetched with CLERK_SECRET_KEY and kept',
  }),
  CLERK_WEBHOOK_SECRET: described(
    z
      .string()
      .regex(/^whsec_[A-Za-z0-9+/]{24,}={0,2}$/, 'must be whsec_ and base64')
      .optional(),
    { section: 'Identity', secret: true, description: 'Signing secret of POST /webhooks/clerk.' },
  ),
  CLERK_AUTHORIZED_PARTIES: described(commaList.refine((list) => list.length > 0, 'must name an origin').optional(), {
    section: 'Identity',
    description: 'Origins whose session tokens are accepted, comma-separated.',
    defaultNote: 'the origin of PUBLIC_URL',
  }),
  CLERK_API_URL: described(safeUrl.default('https://api.clerk.com'), {
    section: 'Identity',
    description: 'Address of the Clerk Backend API.',
  }),
  SERVICE_SECRETS: described(serviceSecrets.optional(), {
    section: 'Services',
    secret: true,
    description:
      'Services that sign their calls, as name:keyId:base64[,...] with at least 32 bytes each; two secrets a service, so that they can be replaced without an outage.',
    defaultNote: 'none',
  }),
  SERVICE_REQUESTS_PER_MINUTE: described(wholeNumber(1, 1_000_000_000).default(60_000), {
    section: 'Services',
    description: 'Calls each service may make in any minute; the limits of tenants do not hold for it.',
  }),
  LEAKED_KEYS: described(z.enum(['restrict', 'revoke']).default('restrict'), {
    section: 'Services',
    description:
      'What POST /leaks does to a key: restrict leaves it known but allowed nothing, so that its owner reads why; revoke ends it.',
  }),
  KEY_CACHE_TTL: described(wholeNumber(0, 60).default(5), {
    section: 'Limits',
    description: 'Seconds a verified key may be answered from memory without asking the database again.',
  }),
  KEY_OUTAGE_GRACE: described(wholeNumber(0, 600).default(60), {
    section: 'Limits',
    description: 'Seconds a key verified before PostgreSQL went away is still accepted while it is away.',
  }),
  UNMETERED_PER_MINUTE: described(wholeNumber(1, 1_000_000_000).default(600), {
    section: 'Limits',
    description:
      'Calls that cost nothing (keys, usage, lists) which the keys of one owner together, and each signed-in person, may make in any minute.',
  }),
  USAGE_FLUSH_INTERVAL_MS: described(wholeNumber(5, 1_000).default(100), {
    section: 'Limits',
    description: 'How often usage is written; a crash loses at most what came in since.',
  }),
  MARKET_SOURCES: described(marketSources.default(['coingecko', 'coinpaprika', 'kraken', 'coinbase']), {
    section: 'Market',
    description:
      'Price sources, comma-separated: coingecko, coinpaprika, coinmarketcap, cryptocompare, kraken, coinbase; or simulated alone, a deterministic market for demos and tests.',
  }),
  COINGECKO_API_KEY: described(z.string().min(1).optional(), {
    section: 'Market',
    secret: true,
    description: 'Demo key of CoinGecko; optional.',
  }),
  COINMARKETCAP_API_KEY: described(z.string().min(1).optional(), {
    section: 'Market',
    secret: true,
    description: 'Key of CoinMarketCap; needed for that source.',
  }),
  CRYPTOCOMPARE_API_KEY: described(z.string().min(1).optional(), {
    section: 'Market',
    secret: true,
    description: 'Key of CryptoCompare; optional.',
  }),
  LOG_LEVEL: described(z.enum(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent']).default('info'), {
    section: 'Observability',
    description: 'Least severe log lines written.',
  }),
  METRICS_TOKEN: described(z.string().min(16).optional(), {
    section: 'Observability',
    secret: true,
    description:
      'Bearer token of /metrics. Without one /metrics answers only in development, only to loopback, only without a forwarding header.',
  }),
});

export type Config = Readonly<z.infer<typeof configSchema>>;

/** All that is wrong with the environment, one line each; the process ends with exit code 78. */
export class ConfigError extends Error {
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super(
      `The configuration has ${problems.length === 1 ? 'a problem' : `${problems.length} problems`}:\n${problems.map((line) => `  - ${line}`).join('\n')}`,
    );
    this.name = 'ConfigError';
    this.problems = problems;
  }
}

/** BSD `EX_CONFIG`. */
export const CONFIG_EXIT_CODE = 78;

export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Parses and freezes the configuration. Empty variables count as unset, and an unset one has the value of `defaults` where
 * that names it, else the schema's. Throws ConfigError with every problem found.
 */
export function loadConfig(environment: Environment = process.env, defaults: Record<string, string> = {}): Config {
  const problems: string[] = [];
  const raw = { ...defaults };
  const values: Record<string, unknown> = {};
  const refused = new Set<string>();
  for (const [name, schema] of Object.entries(configSchema.shape)) {
    const value = environment[name];
    const file = environment[`${name}_FILE`];
    const before = problems.length;
    if (settingMeta(schema).secret && file !== undefined && file !== '') {
      if (value !== undefined && value !== '') problems.push(`${name} and ${name}_FILE are both set: keep one`);
      else readSecretFile(name, file, raw, problems);
    } else if (value !== undefined && value !== '') raw[name] = value;
    if (problems.length === before) {
      const parsed = schema.safeParse(raw[name]);
      if (parsed.success) values[name] = parsed.data;
      // The message names the setting and the rule, never the value, which may be a secret.
      else for (const issue of parsed.error.issues) problems.push(`${name} ${issue.message}`);
    }
    if (problems.length > before) refused.add(name);
  }
  // What is set and wrong has been told, so it is not called missing as well.
  const isMissing = (name: keyof Config) => values[name] === undefined && !refused.has(name);
  problems.push(...unsafeInProduction(values, isMissing), ...inconsistent(values, isMissing));
  if (problems.length > 0) throw new ConfigError(problems);
  return Object.freeze(values as Config);
}

/** Where the value of a setting comes from. */
export function settingSource(
  name: string,
  environment: Environment = process.env,
): 'environment' | 'file' | 'default' {
  const isSet = (variable: string) => (environment[variable] ?? '') !== '';
  if (isSet(name)) return 'environment';
  const schema = Object.entries(configSchema.shape).find(([known]) => known === name)?.[1];
  return schema !== undefined && settingMeta(schema).secret && isSet(`${name}_FILE`) ? 'file' : 'default';
}

/** Settings of the plan that this release does not have; somebody who sets one should hear that it does nothing. */
const SETTINGS_TO_COME = [
  'REDIS_CACHE_URL',
  'REDIS_TTL_DEFAULT',
  'IORA_WORKERS',
  'STRIPE_SECRET_KEY',
  'STRIPE_WEBHOOK_SECRET',
  'TYPESENSE_URL',
  'TYPESENSE_API_KEY',
  'DATABASE_WORKER_URL',
];

/** Names that are set and have no effect in this release. */
export function settingsWithoutEffect(environment: Environment = process.env): string[] {
  return SETTINGS_TO_COME.filter((name) => environment[name] !== undefined && environment[name] !== '');
}

/** The description of a setting, as given in the schema. */
export function settingMeta(schema: z.ZodType): SettingMeta {
  return schema.meta() as unknown as SettingMeta;
}

function readSecretFile(name: string, file: string, raw: Record<string, string>, problems: string[]): void {
  try {
    raw[name] = readFileSync(file, 'utf8').trim();
  } catch (error) {
    problems.push(
      `${name}_FILE names a file that cannot be read (${(error as NodeJS.ErrnoException).code ?? 'unknown error'})`,
    );
  }
}

type IsMissing = (name: keyof Config) => boolean;

function inconsistent(config: Partial<Config>, isMissing: IsMissing): string[] {
  const problems: string[] = [];
  const { DATABASE_POOL_MIN: min, DATABASE_POOL_MAX: max } = config;
  if (min !== undefined && max !== undefined && min > max)
    problems.push('DATABASE_POOL_MIN is above DATABASE_POOL_MAX');
  if (config.MARKET_SOURCES?.includes('coinmarketcap') === true && isMissing('COINMARKETCAP_API_KEY')) {
    problems.push('COINMARKETCAP_API_KEY is required for the source coinmarketcap');
  }
  const isSet = (name: keyof Config) => config[name] !== undefined;
  if (isSet('OIDC_ISSUER') && isMissing('OIDC_AUDIENCE')) problems.push('OIDC_AUDIENCE is required with OIDC_ISSUER');
  const ofClerk = (['CLERK_SECRET_KEY', 'CLERK_JWT_KEY', 'CLERK_WEBHOOK_SECRET'] as const).filter(isSet);
  if (ofClerk.length > 0 && isMissing('CLERK_PUBLISHABLE_KEY')) {
    problems.push(`CLERK_PUBLISHABLE_KEY is required with ${ofClerk.join(' and ')}`);
  }
  if (isSet('CLERK_PUBLISHABLE_KEY') && isMissing('CLERK_SECRET_KEY') && isMissing('CLERK_JWT_KEY')) {
    problems.push('CLERK_PUBLISHABLE_KEY needs CLERK_JWT_KEY or CLERK_SECRET_KEY to verify tokens with');
  }
  if ((isSet('OIDC_ISSUER') || isSet('CLERK_PUBLISHABLE_KEY')) && isMissing('PUBLIC_URL')) {
    problems.push('PUBLIC_URL is required beside an identity provider: it names what OAuth tokens are made for');
  }
  return problems;
}

/** What production mode refuses before anything is started. The database login itself is checked once connected. */
function unsafeInProduction(config: Partial<Config>, isMissing: IsMissing): string[] {
  if (config.IORA_MODE !== 'production') return [];
  const problems: string[] = [];
  for (const name of ['KEY_PEPPER', 'DATA_KEYS'] as const) {
    if (isMissing(name))
      problems.push(`${name} is required in production (make one: echo "1:$(openssl rand -base64 32)")`);
  }
  if (config.CLERK_PUBLISHABLE_KEY?.startsWith('pk_test_') === true) {
    problems.push('CLERK_PUBLISHABLE_KEY names a development instance (pk_test_...): production needs pk_live_...');
  }
  for (const name of ['DATABASE_URL', 'DATABASE_DIRECT_URL', 'DATABASE_MIGRATION_URL'] as const) {
    const url = config[name];
    if (url !== undefined && !isLocal(url) && tlsModeOf(url, !isMissing('DATABASE_CA_FILE')) !== 'verify-full') {
      problems.push(`${name} needs sslmode=verify-full in production (or a Unix socket or loopback address)`);
    }
  }
  return problems;
}

/** A Unix socket (whose path a URL may hold escaped), or an address of this machine; a name that only looks like one is not. */
function isLocal(url: string): boolean {
  const { searchParams, hostname } = new URL(url);
  const host = searchParams.get('host') ?? hostname;
  if (['', 'localhost', '[::1]', '::1'].includes(host)) return true;
  return /^(?:\/|%2f)/i.test(host) || (isIP(host) === 4 && host.startsWith('127.'));
}
