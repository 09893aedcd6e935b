import { createHealth } from '../features/health/index.ts';
import { createMetricsEndpoint } from '../features/health/metrics-endpoint.ts';
import { keepPartitionsAhead, type PartitionKeeper } from '../features/retention/keep-partitions-ahead.ts';
import { type Config, loadConfig, settingsWithoutEffect } from '../platform/config.ts';
import { assertDatabaseUsable, awaitDatabase } from '../platform/database-start.ts';
import { type Log, openLog } from '../platform/log.ts';
import { openMetrics } from '../platform/metrics.ts';
import { migrateUp } from '../platform/migrations.ts';
import { createHttpServer } from '../transports/http/server.ts';
import { checkHostAndOrigin, createMcpTransport, createProtectedResource } from '../transports/mcp/index.ts';
import { type DatabaseSource, openDatabaseSource } from './database.ts';
import { version } from './release.ts';
import { runProcess } from './run-process.ts';
import { loadSecrets } from './secrets.ts';
import { wire } from './wire.ts';

/** A server that takes traffic. */
export interface RunningServer {
  /** Where it answers: http://host:port. */
  readonly url: string;
  /**
   * Stops taking calls, finishes those under way, writes what is in memory, stops the embedded database. Idempotent.
   * Resolves to the number of usage rows that could not be written in time.
   */
  stop(): Promise<number>;
}

/** Starts everything and resolves once the server takes traffic. What was started is stopped again when a later step fails. */
export async function startServer(config: Config, log: Log): Promise<RunningServer> {
  const secrets = loadSecrets(config, log);
  const source = await openDatabaseSource(config, log, 'serve');
  try {
    await prepareDatabase(config, log, source);
    return await listen(config, log, secrets, source);
  } catch (error) {
    await source.stop();
    throw error;
  }
}

async function prepareDatabase(config: Config, log: Log, source: DatabaseSource): Promise<void> {
  if (source.embedded || (config.MIGRATE_ON_START ?? config.IORA_MODE === 'development')) {
    await awaitDatabase(source.migration, config.DATABASE_STARTUP_TIMEOUT_MS);
    const { applied } = await migrateUp({ ...source.migration, log: (line) => log.debug({ line }, 'migration') });
    if (applied.length > 0) log.info({ applied }, 'migrations applied');
  }
  await awaitDatabase(source.service, config.DATABASE_STARTUP_TIMEOUT_MS);
  await assertDatabaseUsable(source.service, { production: config.IORA_MODE === 'production' });
}

async function listen(
  config: Config,
  log: Log,
  secrets: ReturnType<typeof loadSecrets>,
  source: DatabaseSource,
): Promise<RunningServer> {
  const metrics = openMetrics();
  const application = wire({
    config,
    secrets,
    service: source.service,
    direct: source.direct,
    embedded: source.embedded,
    log,
    metrics,
    serves: true,
  });
  let accepting = false;
  let partitions: PartitionKeeper;
  try {
    partitions = await keepPartitionsAhead({ database: application.database, log, wallClockMs: Date.now });
    await application.start();
    application.startJobs();
  } catch (error) {
    await application.close(0);
    throw error;
  }

  metrics.gauge('iora_usage_events_pending', 'Usage events not yet in the database', () => application.usage().pending);
  metrics.gauge(
    'iora_database_pool_waiting',
    'Callers waiting for a connection',
    () => application.database.stats().waiting,
  );
  metrics.gauge('iora_listening', '1 while invalidations of other instances arrive', () =>
    Number(application.listening()),
  );
  const { redis } = application;
  if (redis !== null) {
    metrics.gauge('iora_redis_connected', '1 while Redis answers and its messages arrive', () =>
      Number(redis.connected),
    );
  }
  metrics.gauge('iora_partition_months_ahead', 'Months of partitions ready beyond the current one', () =>
    partitions.monthsAhead(),
  );
  const others = (await application.database.call(application.instances.live)).length - 1;
  if (others > 0) log.warn({ others }, 'other instances serve this database: rate limits hold per process only');
  const health = createHealth({
    ...application,
    database: application.probeDatabase,
    pool: application.database.stats,
    accepting: () => accepting,
    version,
  });
  const mcp = createMcpTransport({
    operations: application.operations,
    version,
    ...(config.PUBLIC_URL === undefined ? {} : { docsUrl: config.PUBLIC_URL }),
  });
  const resource =
    config.PUBLIC_URL === undefined || application.accessTokenIssuers.length === 0
      ? null
      : createProtectedResource({
          publicUrl: config.PUBLIC_URL,
          issuers: application.accessTokenIssuers,
          operations: application.operations,
        });
  const publicHost = config.PUBLIC_URL === undefined ? [] : [new URL(config.PUBLIC_URL).host];
  const server = createHttpServer({
    operations: application.operations,
    endpoints: [
      ...application.endpoints,
      ...(resource?.endpoints ?? []),
      ...health.endpoints,
      createMetricsEndpoint({ metrics, token: config.METRICS_TOKEN, mode: config.IORA_MODE }),
    ],
    invoke: application.invoke,
    authenticate: application.authenticate,
    rightsHeard: application.rightsHeard,
    mcp: {
      ...mcp,
      resource,
      check: (headers) => checkHostAndOrigin(headers, { hosts: publicHost, origins: [] }),
    },
    log,
    metrics,
    version,
    publicUrl: config.PUBLIC_URL,
    trustedProxies: config.TRUSTED_PROXIES,
  });
  try {
    await server.listen({ host: config.HOST, port: config.PORT });
  } catch (error) {
    partitions.close();
    await application.close(0);
    throw error;
  }
  accepting = true;

  const { port } = server.server.address() as { port: number };
  let stopping: Promise<number> | undefined;
  return {
    url: `http://${config.HOST.includes(':') ? `[${config.HOST}]` : config.HOST}:${port}`,
    stop() {
      stopping ??= (async () => {
        const deadline = performance.now() + config.SHUTDOWN_DEADLINE_MS;
        accepting = false;
        partitions.close();
        // Half the time is for calls under way, the rest for writing down what they did.
        const cut = setTimeout(() => server.server.closeAllConnections(), config.SHUTDOWN_DEADLINE_MS / 2);
        await server.close();
        clearTimeout(cut);
        await mcp.close();
        const lost = await application.close(Math.max(0, deadline - performance.now()));
        await source.stop();
        return lost;
      })();
      return stopping;
    },
  };
}

/** The server's process, from its start until a signal stops it; says on standard output when it takes traffic. */
export async function runServer(options: { json: boolean } = { json: false }): Promise<void> {
  await runProcess(async (onStop) => {
    const config = loadConfig();
    const log = openLog(config.LOG_LEVEL);
    const without = settingsWithoutEffect();
    if (without.length > 0) log.warn({ settings: without }, 'set, but without effect in this release');
    const server = await startServer(config, log);
    onStop(async () => {
      log.info({}, 'stopping');
      const lost = await server.stop();
      log.flush();
      return lost === 0 ? 0 : 1;
    }, config.SHUTDOWN_DEADLINE_MS);
    const ready = options.json
      ? JSON.stringify({ version, url: server.url })
      : `IORA ${version} takes traffic at ${server.url}`;
    process.stdout.write(`${ready}\n`);
  });
}

/** Only when started as a program. */
if (import.meta.main) await runServer();
