// The whole application, wired on a database of a test's own: what `serve` puts together, without a port.
import { randomBytes, randomUUID } from 'node:crypto';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { signLocalToken } from '../../src/features/tenants/index.ts';
import type { Call, Credentials, OrganizationRole, Principal } from '../../src/kernel/context.ts';
import type { Outcome } from '../../src/kernel/invoke.ts';
import type { Operation } from '../../src/kernel/operation.ts';
import type { Secrets } from '../../src/main/secrets.ts';
import { type Application, wire } from '../../src/main/wire.ts';
import { loadConfig } from '../../src/platform/config.ts';
import { parseConnection } from '../../src/platform/connection.ts';
import { openMetrics } from '../../src/platform/metrics.ts';
import { type CapturedLog, captureLog } from './captured-log.ts';
import type { TestDatabase } from './postgres.ts';

export interface TestApplication {
  readonly app: Application;
  readonly log: CapturedLog;
  readonly secrets: Secrets;
  operation(name: string): Operation;
  /** Runs an operation as that caller, as a transport would; never throws. */
  call(operationName: string, principal: Principal, input?: unknown, change?: Partial<Call>): Promise<Outcome>;
  /** The output of a call that must succeed; throws its error otherwise. */
  output<T = Record<string, unknown>>(operationName: string, principal: Principal, input?: unknown): Promise<T>;
  token(email: string, org?: string, admin?: boolean): Promise<string>;
  /** Signs a person in, making them known where they were not. */
  session(email: string, org?: string): Promise<Principal>;
  /** Signs a person in with that role in the organization. */
  member(email: string, org: string, role: OrganizationRole): Promise<Principal>;
  /** The principal of an API key or token. */
  bearer(credential: string): Promise<Principal>;
  /** A statement as superuser, past row-level security. */
  // biome-ignore lint/suspicious/noExplicitAny: rows of whatever a test asks for
  sql(text: string, values?: unknown[]): Promise<any[]>;
  /** Closes everything; resolves to the usage rows lost. */
  close(deadlineMs?: number): Promise<number>;
}

export interface ApplicationOptions {
  /** Settings beside the defaults, as in the environment. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Shared between instances of one installation. */
  readonly secrets?: Secrets;
  readonly serves?: boolean;
  /** Other addresses for the pool and for LISTEN, such as a proxy's. */
  readonly serviceUrl?: string;
  readonly directUrl?: string;
}

const CLOSE_DEADLINE_MS = 5_000;

/** Secrets of an installation that exists for one test. */
export function testSecrets(): Secrets {
  return {
    peppers: [{ version: 1, secret: randomBytes(32) }],
    dataKeys: [{ version: 1, secret: randomBytes(32) }],
    localIdentity: randomBytes(32),
  };
}

/** Wires and starts an application on that database. */
export async function startApplication(
  database: TestDatabase,
  options: ApplicationOptions = {},
): Promise<TestApplication> {
  const serviceUrl = options.serviceUrl ?? database.apiUrl;
  const config = loadConfig({
    UNMETERED_PER_MINUTE: '1000000000',
    DATABASE_URL: serviceUrl,
    // Never made: every secret is given.
    IORA_DATA_DIR: join(tmpdir(), `iora-unused-${randomUUID()}`),
    MARKET_SOURCES: 'simulated',
    DATABASE_POOL_MIN: '0',
    USAGE_FLUSH_INTERVAL_MS: '20',
    ...options.settings,
  });
  const secrets = options.secrets ?? testSecrets();
  const log = captureLog();
  const app = wire({
    config,
    secrets,
    service: parseConnection(serviceUrl),
    direct: parseConnection(options.directUrl ?? database.apiUrl),
    embedded: false,
    log,
    metrics: openMetrics(),
    serves: options.serves ?? true,
  });
  const superuser = new pg.Pool({ connectionString: database.superuserUrl, max: 2 });
  superuser.on('error', () => undefined);
  await app.start();
  await until(() => app.listening(), 'the bus listens');

  function operation(name: string): Operation {
    const found = app.operations.find((candidate) => candidate.name === name);
    if (found === undefined) throw new Error(`there is no operation ${name}`);
    return found;
  }

  function call(name: string, principal: Principal, input: unknown = {}, change: Partial<Call> = {}) {
    const base: Call = {
      principal,
      requestId: randomUUID(),
      transport: 'http',
      ipAddress: '192.0.2.1',
      userAgent: 'test',
      signal: null,
    };
    return app.invoke(operation(name), { ...base, ...change }, input);
  }

  function token(email: string, org?: string, admin?: boolean): Promise<string> {
    if (secrets.localIdentity === null) throw new Error('without a local identity there are no tokens');
    return signLocalToken(secrets.localIdentity, { email, org, admin });
  }

  const bearer = async (credential: string) =>
    app.authenticate(credentialsOf({ authorization: `Bearer ${credential}` }));

  return {
    app,
    log,
    secrets,
    operation,
    call,
    async output<T>(name: string, principal: Principal, input?: unknown) {
      const outcome = await call(name, principal, input);
      if (!outcome.ok) throw outcome.error;
      return outcome.output as T;
    },
    token,
    session: async (email, org) => bearer(await token(email, org)),
    async member(email, org, role) {
      // First seen under a credential of its own, so that nothing is remembered of the one signed in with below.
      const { userId, orgId } = await bearer(await token(email, org, true));
      await superuser.query('UPDATE organization_members SET role = $3 WHERE user_id = $1 AND org_id = $2', [
        userId,
        orgId,
        role,
      ]);
      return bearer(await token(email, org));
    },
    bearer,
    sql: async (text, values) => (await superuser.query(text, values)).rows,
    async close(deadlineMs = CLOSE_DEADLINE_MS) {
      const lost = await app.close(deadlineMs);
      await superuser.end();
      return lost;
    },
  };
}

/** What a request without a body says about who sent it. */
export function credentialsOf(headers: Credentials['headers'], change: Partial<Credentials> = {}): Credentials {
  return { headers, method: 'GET', target: '/', ipAddress: '192.0.2.1', body: () => Buffer.alloc(0), ...change };
}

const POLL_MS = 10;
const POLLS_MAX = 1_500;

/** Waits until it holds, asking every 10 ms; rejects, naming what was awaited, after 15 s. */
export async function until(holds: () => boolean | Promise<boolean>, what: string): Promise<void> {
  for (let poll = 0; poll < POLLS_MAX; poll += 1) {
    if (await holds()) return;
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  throw new Error(`waited in vain until ${what}`);
}
