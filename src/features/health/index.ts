import { sql } from 'kysely';
import type { Endpoint, EndpointAnswer, EndpointRequest } from '../../kernel/endpoint.ts';
import type { Database } from '../../platform/postgres.ts';

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

interface DatabaseFacts {
  readonly version: string;
  readonly in_recovery: boolean;
  readonly replicas: number;
  readonly migrations: number;
  readonly latest_migration: string | null;
}

/** The health endpoints: alive, ready, and the state of what the service depends on. */
export function createHealth(parts: HealthParts): { endpoints: readonly Endpoint[] } {
  const probe = sharedProbe(parts.database);
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
        answer: (request) => databaseHealth(parts, probe, request),
      },
    ],
  };
}

async function databaseHealth(
  parts: HealthParts,
  probe: () => Promise<Probe>,
  request: EndpointRequest,
): Promise<EndpointAnswer> {
  // Bounded like the probe: looking up a credential asks the same database.
  const [result, principal] = await Promise.all([probe(), orNullInTime(request.principal())]);
  const status = result.healthy ? 'healthy' : 'unhealthy';
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
          usage: parts.usage(),
        }
      : { status };
  return { status: result.healthy ? 200 : 503, contentType: 'application/json', body: JSON.stringify(body) };
}

/** Asks PostgreSQL once, bounded; never throws. */
export async function probePostgresql(database: Database): Promise<PostgresqlHealth> {
  return toHealth(await probeOnce(database));
}

function toHealth({ healthy, latencyMs, facts }: Probe): PostgresqlHealth {
  return {
    status: healthy ? 'healthy' : 'unhealthy',
    latencyMs: Math.round(latencyMs * 100) / 100,
    version: facts?.version ?? null,
    replication: facts === null ? null : { inRecovery: facts.in_recovery, replicas: facts.replicas },
    migrations: facts === null ? null : { applied: facts.migrations, latest: facts.latest_migration },
  };
}

function word(status: number, text: string): EndpointAnswer {
  return { status, contentType: 'text/plain; charset=utf-8', body: `${text}\n` };
}

/** One probe at a time, bounded even when the database accepts and never answers. */
function sharedProbe(database: Database): () => Promise<Probe> {
  let running: Promise<Probe> | undefined;
  let last: { probe: Probe; atMs: number } | undefined;
  return () => {
    if (last !== undefined && performance.now() - last.atMs < PROBE_KEPT_MS) return Promise.resolve(last.probe);
    running ??= probeOnce(database).then((probe) => {
      last = { probe, atMs: performance.now() };
      running = undefined;
      return probe;
    });
    return running;
  };
}

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
