import { randomUUID } from 'node:crypto';
import { createAuditTrail } from '../features/audit/audit-trail.ts';
import { createInstances } from '../features/health/index.ts';
import {
  createInvalidations,
  createKeyAuthenticator,
  createKeyUse,
  createPrincipalCache,
  unauthenticated,
} from '../features/keys/index.ts';
import { createAdmission } from '../features/limits/admission.ts';
import { createPostgresNonces, createRedisNonces, createServiceAuthenticator } from '../features/services/index.ts';
import { createLocalIdentity, createPeople, createSessions, type OperatorParts } from '../features/tenants/index.ts';
import { chargedSince, createUsageWriter, EVENTS_HELD_MAX } from '../features/usage/index.ts';
import { unavailable } from '../kernel/errors.ts';
import { createInvoke } from '../kernel/invoke.ts';
import { clerkIssuerOf } from '../lib/clerk-publishable-key.ts';
import { createGate } from '../lib/gate.ts';
import { openBus, SILENCE_NOTICED_MS } from '../platform/bus.ts';
import { openCache } from '../platform/cache.ts';
import { openClerkMetadata } from '../platform/clerk-metadata.ts';
import type { Config } from '../platform/config.ts';
import type { Connection } from '../platform/connection.ts';
import type { Log } from '../platform/log.ts';
import type { Metrics } from '../platform/metrics.ts';
import { openDatabase } from '../platform/postgres.ts';
import { createRedis } from '../platform/redis.ts';
import { createAuthenticate } from './authenticate.ts';
import { createFeatures } from './features.ts';
import { openIdentity } from './identity.ts';
import { type RunningJobs, startJobs } from './jobs.ts';
import { version } from './release.ts';
import type { Secrets } from './secrets.ts';

/** Principals kept in memory: about 1 KB each. */
const PRINCIPALS_MAX = 10_000;
/** Credentials never seen before that wait to be looked up: a look-up takes about a millisecond. */
const STRANGERS_WAITING_MAX = 500;
/** Prices and other answers kept in memory. */
const CACHE_ENTRIES_MAX = 10_000;
/** A signed-in person's rights are read again after this long at the latest. */
const SESSION_FRESH_MS = 60_000;
/**
 * How long what is remembered holds while LISTEN is away and news may be missed. A revocation nobody told this process is over
 * after the longer of this and the time in which the silence is noticed: half of the 10 s that are promised.
 */
const UNHEARD_FRESH_MS = SILENCE_NOTICED_MS;
const SECOND_MS = 1_000;
/** A database that answers takes some milliseconds of it for the last goodbyes, also when no time is left otherwise. */
const GOODBYE_MS = 1_000;

export interface WireParts {
  readonly config: Config;
  readonly secrets: Secrets;
  readonly service: Connection;
  readonly direct: Connection;
  readonly log: Log;
  readonly metrics: Metrics;
  /** Whether the database is the embedded one, which serves one server process at a time. */
  readonly embedded: boolean;
  /** Whether this process serves callers and therefore counts among the instances. */
  readonly serves: boolean;
}

export type Application = ReturnType<typeof wire>;

/** Puts the whole application together. Opens no connection yet: that happens at first use and in `start`. */
export function wire({ config, secrets, service, direct, embedded, log, metrics, serves }: WireParts) {
  const monotonicMs = () => performance.now();
  const wallClockMs = () => Date.now();
  const instanceId = randomUUID();
  const onError = (err: Error) => log.warn({ err }, 'a database connection was lost');

  const database = openDatabase({
    connection: service,
    poolMin: config.DATABASE_POOL_MIN,
    poolMax: config.DATABASE_POOL_MAX,
    connectionTimeoutMs: config.DATABASE_CONNECTION_TIMEOUT,
    applicationName: 'iora',
    observe: ({ ms, failed }) => metrics.databaseSeconds.observe({ outcome: failed ? 'failed' : 'ok' }, ms / SECOND_MS),
    onError,
  });
  // A connection of its own, so that a busy pool does not make the server look dead to whoever balances load.
  const probeDatabase = openDatabase({
    connection: service,
    poolMin: 0,
    poolMax: 1,
    connectionTimeoutMs: config.DATABASE_CONNECTION_TIMEOUT,
    applicationName: 'iora-probe',
    onError,
  });
  let rightsHeard = 0;
  const cacheOptions = {
    onChange: () => {
      rightsHeard += 1;
    },
    entriesMax: PRINCIPALS_MAX,
    outageGraceMs: config.KEY_OUTAGE_GRACE * SECOND_MS,
    monotonicMs,
    wallClockMs,
    observe: (result: string) => metrics.keyCache.inc({ result }),
  };
  const strangers = createGate({
    // Half of the pool: the other half is always there for those who are known.
    runningMax: Math.max(1, Math.floor(config.DATABASE_POOL_MAX / 2)),
    waitingMax: STRANGERS_WAITING_MAX,
    refuse: () => unavailable('Too many unknown keys are being looked up at the moment.'),
  });
  let bus: ReturnType<typeof openBus> | undefined;
  const listening = () => bus?.connected === true;
  // Redis does not count: not everybody who revokes reaches it, so hearing it alone is no proof that there is no news.
  const freshFor = (ms: number) => () => (listening() ? ms : Math.min(ms, UNHEARD_FRESH_MS));
  const keyCache = createPrincipalCache({
    ...cacheOptions,
    strangers,
    freshMs: freshFor(config.KEY_CACHE_TTL * SECOND_MS),
  });
  const sessionCache = createPrincipalCache({ ...cacheOptions, freshMs: freshFor(SESSION_FRESH_MS) });
  const serviceCache = createPrincipalCache({ ...cacheOptions, freshMs: freshFor(config.KEY_CACHE_TTL * SECOND_MS) });
  const caches = [keyCache, sessionCache, serviceCache];
  const instances = createInstances({ database, log, id: instanceId, version, alone: embedded });
  const redis =
    config.REDIS_URL === undefined
      ? null
      : createRedis({
          url: config.REDIS_URL,
          prefix: config.REDIS_PREFIX,
          onLost: (err) => log.warn({ err }, 'a connection to Redis was lost'),
        });
  const invalidations = createInvalidations({
    database,
    redis,
    caches,
    instanceId: serves ? instanceId : null,
    liveInstances: instances.live,
    log,
    observe: (name, ms) => metrics.revocationPropagation.observe({ bus: name }, ms / SECOND_MS),
  });
  const keyUse = createKeyUse({ database, log, wallClockMs });
  const usageWriter = createUsageWriter({
    database,
    flushIntervalMs: config.USAGE_FLUSH_INTERVAL_MS,
    log,
    observe: (result, rows) => metrics.usageRows.inc({ result }, rows),
  });
  const admission = createAdmission({
    unmeteredPerWindowMax: config.UNMETERED_PER_MINUTE,
    servicePerWindowMax: config.SERVICE_REQUESTS_PER_MINUTE,
    monotonicMs,
    wallClockMs,
    usedSince: (principal, subject, sinceMs) =>
      chargedSince({ database, writer: usageWriter }, principal, subject, sinceMs),
    observe: (decision, policy) => metrics.limitDecisions.inc({ decision, policy }),
  });
  const people = createPeople({ database, dataKeys: secrets.dataKeys });
  const sessions = createSessions({ people, cache: sessionCache });
  const identity = openIdentity(config, { sessions, log, monotonicMs });
  const localIdentity =
    identity !== null || secrets.localIdentity === null
      ? null
      : createLocalIdentity({ secret: secrets.localIdentity, sessions });
  const authenticateKey = createKeyAuthenticator({
    database,
    peppers: secrets.peppers,
    cache: keyCache,
    use: keyUse,
    log,
  });

  const authenticate = createAuthenticate({
    key: authenticateKey,
    session: (token) => {
      const provider = identity ?? localIdentity;
      if (provider === null) throw unauthenticated();
      return provider.authenticate(token);
    },
    service: createServiceAuthenticator({
      secrets: config.SERVICE_SECRETS ?? [],
      nonces: redis === null ? createPostgresNonces(database) : createRedisNonces(redis),
      database,
      cache: serviceCache,
      wallClockMs,
    }),
    publicOrigin: config.PUBLIC_URL === undefined ? undefined : new URL(config.PUBLIC_URL).origin,
  });

  const cache = openCache({ maxEntries: CACHE_ENTRIES_MAX, monotonicMs });
  const { operations, endpoints, jobs } = createFeatures({
    keys: { database, peppers: secrets.peppers, invalidations, use: keyUse, admission, log, wallClockMs },
    operator: { database, invalidations, dataKeys: secrets.dataKeys, log, clerk: clerkToTell(config) },
    usage: { database, writer: usageWriter, admission, wallClockMs },
    leaks: { peppers: secrets.peppers, invalidations, policy: config.LEAKED_KEYS },
    tenants: { database, dataKeys: secrets.dataKeys, log },
    clerk: {
      database,
      dataKeys: secrets.dataKeys,
      invalidations,
      issuer: clerkIssuerOf(config.CLERK_PUBLISHABLE_KEY ?? ''),
      webhookSecret: config.CLERK_WEBHOOK_SECRET,
    },
    market: {
      sources: config.MARKET_SOURCES,
      apiKeys: {
        coingecko: config.COINGECKO_API_KEY,
        coinmarketcap: config.COINMARKETCAP_API_KEY,
        cryptocompare: config.CRYPTOCOMPARE_API_KEY,
      },
      cache,
      wallClockMs,
      observe: {
        sourceCall: (source, outcome) => metrics.sourceCalls.inc({ source, outcome }),
        price: (state) => metrics.priceCache.inc({ state }),
      },
    },
  });
  const invoke = createInvoke({
    database,
    admission,
    meter: usageWriter,
    audit: createAuditTrail({ database, log, wallClockMs }),
    wallClockMs,
  });

  let runningJobs: RunningJobs | undefined;

  async function closeRest(): Promise<void> {
    // Side by side: a job may wait some seconds for somebody else's server.
    await Promise.all([
      runningJobs?.close(),
      keyUse.close().catch((err: unknown) => log.warn({ err }, 'last use of keys could not be written')),
      serves
        ? instances.close().catch((err: unknown) => log.warn({ err }, 'goodbye to the instances failed'))
        : undefined,
    ]);
    await Promise.all([bus?.close(), redis?.close()]);
    await cache.close();
    await Promise.all([database.close(), probeDatabase.close()]);
  }

  return {
    operations,
    endpoints,
    jobs,
    invoke,
    authenticate,
    rightsHeard: () => rightsHeard,
    database,
    probeDatabase,
    people,
    sessions,
    instances,
    localIdentity,
    accessTokenIssuers: identity?.accessTokenIssuers ?? [],
    redis,
    usage: () => ({ pending: usageWriter.pending(), max: EVENTS_HELD_MAX }),
    listening,
    /**
     * Connects what listens and, when serving, joins the instances. The schema must be there. Waits, bounded, until it listens:
     * a command is about to ask for acknowledgements and lives too short to catch up, and a server must not remember anything
     * from before it can be told. Redis is not waited for.
     */
    async start(): Promise<void> {
      const connected = Promise.withResolvers<void>();
      bus = openBus({
        connection: direct,
        channels: invalidations.channels.postgres,
        // Whatever was revoked while nobody listened was missed, so nothing remembered from before is believed.
        onConnect: () => {
          for (const known of caches) known.clear();
          connected.resolve();
        },
        onError,
        connectionTimeoutMs: config.DATABASE_CONNECTION_TIMEOUT,
        applicationName: 'iora-bus',
      });
      // Nothing is forgotten when this one comes back: its news came by LISTEN as well, or that is away and forgets on return.
      redis?.subscribe({ channels: invalidations.channels.redis });
      redis?.connect();
      if (serves) identity?.prime();
      const bound = setTimeout(connected.resolve, config.DATABASE_CONNECTION_TIMEOUT);
      await connected.promise;
      clearTimeout(bound);
      if (!serves) return;
      await instances.start();
    },
    /** Begins the upkeep, which goes on until `close`; for a process that stays. */
    startJobs(): void {
      runningJobs = startJobs({ database, jobs, log, wallClockMs });
    },
    /** Writes what is still in memory and closes everything, within the deadline. Resolves to usage rows lost. */
    async close(deadlineMs: number): Promise<number> {
      const endsAt = performance.now() + deadlineMs;
      const lost = await usageWriter.close(deadlineMs);
      if (lost > 0) log.error({ rows: lost }, 'usage rows could not be written before the deadline');
      const rest = closeRest();
      // A silent database is not waited for: whoever closes is about to end, and its connections end with it.
      const late = Promise.withResolvers<void>();
      const bound = setTimeout(late.resolve, Math.max(GOODBYE_MS, endsAt - performance.now()));
      await Promise.race([rest, late.promise]);
      clearTimeout(bound);
      return lost;
    },
  };
}

/** Whom tiers are passed on to: Clerk, where it may be written to. */
function clerkToTell(config: Config): OperatorParts['clerk'] {
  const { CLERK_PUBLISHABLE_KEY: publishableKey, CLERK_SECRET_KEY: secretKey, CLERK_API_URL: apiUrl } = config;
  if (publishableKey === undefined || secretKey === undefined) return null;
  const issuer = clerkIssuerOf(publishableKey);
  return issuer === null ? null : { issuer, metadata: openClerkMetadata({ secretKey, apiUrl }) };
}
