import { sql } from 'kysely';
import type { Endpoint, EndpointAnswer, EndpointRequest } from '../../kernel/endpoint.ts';
import type { Database } from '../../platform/postgres.ts';
import type { Redis } from '../../platform/redis.ts';

export { createInstances } from './instances.ts';

export interface HealthParts {
  /** Asked by the probe alone. */
  readonly database: Database;
  /** Of the connections that serve calls. */
  readonly pool: Database['stats'];
  /** False from the moment the server stops taking new work. */
  readonly accepting: () => boolean;
  /** True while LISTEN is connected, so that revocations of other instances arrive. */
  readonly listening: () => boolean;
  /** Null where none is configured. */
  readonly redis: Pick<Redis, 'ping' | 'connected'> | null;
  /** Usage events waiting in memory, and the most that may wait. */
  readonly usage: () => { pending: number; max: number };
  readonly version: string;
}

/** A database that needs longer than this for one row is not one to send traffic to. */
const PROBE_TIMEOUT_MS = 1_500;
/** Probes in a row share one answer for this long, so that asking often costs nothing. */
const PROBE_KEPT_MS = 1_000;

interface Probe {
  readonly healthy: boolean;
  readonly latencyMs: number;
  readonly facts: DatabaseFacts | null;
}

/** State of PostgreSQL as the health answers show it; facts are null where it did not give them in time. */
export interface PostgresqlHealth {
  readonly status: 'healthy' | 'unhealthy';
  readonly latencyMs: number;
  readonly version: string | null;
  readonly replication: { readonly inRecovery: boolean; readonly replicas: number } | null;
  readonly migrations: { readonly applied: number; readonly latest: string | null } | null;
}

/** State of Redis as the health answers show it. */
interface RedisHealth {
  readonly status: 'healthy' | 'unhealthy';
  readonly latencyMs: number;
}

interface DatabaseFacts {
  readonly version: string;
  readonly in_recovery: boolean;
  readonly replicas: number;
  readonly migrations: number;
  readonly latest_migration: string | null;
}

/** The health endpoints: alive, ready, and the state of what the service depends on. */
export function createHealth(parts: HealthParts): { endpoints: readonly Endpoint[] } {
  const probe = shared(() => probeOnce(parts.database));
  const { redis } = parts;
  const probeRedis = redis === null ? async () => null : shared(() => probeRedisOnce(redis));
  return {
    endpoints: [
      {
        method: 'GET',
        path: '/healthz',
        summary: 'Alive: the process answers',
        answer: () => word(200, 'ok'),
      },
      {
        method: 'GET',
        path: '/readyz',
        summary: 'Ready: the process may take traffic',
        async answer() {
          if (!parts.accepting()) return word(503, 'stopping');
          return (await probe()).healthy ? word(200, 'ready') : word(503, 'not ready');
        },
      },
      {
        method: 'GET',
        path: '/health/database',
        summary: 'State of PostgreSQL and of what else is configured; detail for administrators and services',
        answer: (request) => databaseHealth(parts, probe, probeRedis, request),
      },
    ],
  };
}

async function databaseHealth(
  parts: HealthParts,
  probe: () => Promise<Probe>,
  probeRedis: () => Promise<RedisHealth | null>,
  request: EndpointRequest,
): Promise<EndpointAnswer> {
  // Bounded like the probe: looking up a credential asks the same database.
  const [result, redis, principal] = await Promise.all([probe(), probeRedis(), orNullInTime(request.principal())]);
  const status = overall(result, redis);
  const body =
    principal?.kind === 'service' || principal?.permissions.has('admin:read') === true
      ? {
          status,
          version: parts.version,
          postgresql: {
            ...toHealth(result),
            pool: parts.pool(),
            listening: parts.listening(),
          },
          ...(redis === null ? {} : { redis }),
          usage: parts.usage(),
        }
      : { status };
  return { status: result.healthy ? 200 : 503, contentType: 'application/json', body: JSON.stringify(body) };
}

/** Without PostgreSQL nothing is served; what else is away costs speed or exactness. */
function overall(postgresql: Probe, redis: RedisHealth | null): 'healthy' | 'degraded' | 'unhealthy' {
  if (!postgresql.healthy) return 'unhealthy';
  return redis?.status === 'unhealthy' ? 'degraded' : 'healthy';
}

/** Asks PostgreSQL once, bounded; never throws. */
export async function probePostgresql(database: Database): Promise<PostgresqlHealth> {
  return toHealth(await probeOnce(database));
}

function toHealth({ healthy, latencyMs, facts }: Probe): PostgresqlHealth {
  return {
    status: healthy ? 'healthy' : 'unhealthy',
    latencyMs: hundredths(latencyMs),
    version: facts?.version ?? null,
    replication: facts === null ? null : { inRecovery: facts.in_recovery, replicas: facts.replicas },
    migrations: facts === null ? null : { applied: facts.migrations, latest: facts.latest_migration },
  };
}

/** Asks Redis once, bounded; never throws. One whose messages do not arrive is not healthy either. */
async function probeRedisOnce(redis: Pick<Redis, 'ping' | 'connected'>): Promise<RedisHealth> {
  const startedAt = performance.now();
  const answered = await orNullInTime(redis.ping().then(() => redis.connected));
  return { status: answered === true ? 'healthy' : 'unhealthy', latencyMs: hundredths(performance.now() - startedAt) };
}

function hundredths(ms: number): number {
  return Math.round(ms * 100) / 100;
}

function word(status: number, text: string): EndpointAnswer {
  return { status, contentType: 'text/plain; charset=utf-8', body: `${text}\n` };
}

/** One probe at a time, whose answer is kept for a moment. */
function shared<T>(ask: () => Promise<T>): () => Promise<T> {
  let running: Promise<T> | undefined;
  let last: { answer: T; atMs: number } | undefined;
  return () => {
    if (last !== undefined && performance.now() - last.atMs < PROBE_KEPT_MS) return Promise.resolve(last.answer);
    running ??= ask().then((answer) => {
      last = { answer, atMs: performance.now() };
      running = undefined;
      return answer;
    });
    return running;
  };
}

/** Bounded even when the database accepts and never answers. */
async function probeOnce(database: Database): Promise<Probe> {
  const startedAt = performance.now();
  const facts = await orNullInTime(databaseFacts(database));
  return { healthy: facts !== null && !facts.in_recovery, latencyMs: performance.now() - startedAt, facts };
}

/** What the promise gives, or null where it fails or takes longer than a probe may. */
async function orNullInTime<T>(promise: Promise<T>): Promise<T | null> {
  const late = Promise.withResolvers<null>();
  const timer = setTimeout(() => late.resolve(null), PROBE_TIMEOUT_MS);
  const result = await Promise.race([promise.catch(() => null), late.promise]);
  clearTimeout(timer);
  return result;
}

async function databaseFacts(database: Database): Promise<DatabaseFacts> {
  // Reading alone, which a standby allows too.
  const { rows } = await database.read({ ownerId: '', userId: null }, (tx) =>
    sql<DatabaseFacts>`
      select current_setting('server_version') as version,
             pg_is_in_recovery() as in_recovery,
             (select count(*)::int from pg_stat_get_wal_senders()) as replicas,
             (select count(*)::int from schema_migrations) as migrations,
             (select max(name) from schema_migrations) as latest_migration`.execute(tx),
  );
  const [facts] = rows;
  if (facts === undefined) throw new Error('the probe answered no row');
  return facts;
}
