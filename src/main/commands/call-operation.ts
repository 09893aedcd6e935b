import { keepPartitionsAhead } from '../../features/retention/keep-partitions-ahead.ts';
import {
  findPerson,
  installationOperator,
  LOCAL_ISSUER,
  operatorPrincipal,
  type Person,
} from '../../features/tenants/index.ts';
import type { Principal } from '../../kernel/context.ts';
import { AppError, toAppError } from '../../kernel/errors.ts';
import type { Config } from '../../platform/config.ts';
import { openMetrics } from '../../platform/metrics.ts';
import type { OperationRequest } from '../../transports/cli/operation-commands.ts';
import { version } from '../release.ts';
import { hasIdentityProvider, loadSecrets, type Secrets } from '../secrets.ts';
import { type Application, wire } from '../wire.ts';
import { loadCommandConfig } from './command-config.ts';
import { type CommandParts, prepareDatabase, withDatabase } from './command-database.ts';
import { unlessAborted } from './interrupt.ts';
import { readNamedPerson, readPerson } from './person.ts';

/** Longest wait for usage to be written before the command ends and says that it was not. */
const FLUSH_DEADLINE_MS = 5_000;

/**
 * Runs an operation as that person, through `invoke` like every transport. Hands the output over before anything is
 * cleaned up, for it may hold a key that is shown once. Throws AppError for a refusal.
 */
export async function callOperation(
  request: OperationRequest,
  answer: (output: unknown) => Promise<void>,
): Promise<void> {
  const identify = identifier(request, loadCommandConfig());
  await withDatabase(async (parts) => {
    await prepareDatabase(parts);
    const { config, log, source, signal } = parts;
    const secrets = loadSecrets(config, log);
    const { service, direct, embedded } = source;
    const application = wire({
      config,
      secrets,
      service,
      direct,
      embedded,
      log,
      metrics: openMetrics(),
      serves: false,
    });
    let lost = 0;
    try {
      await unlessAborted(makeReady(application, request, parts), signal);
      await invoke(application, { request, identify: () => identify(application, secrets), parts, answer });
    } catch (thrown) {
      if (signal.aborted && !(thrown instanceof AppError)) throw signal.reason;
      const error = toAppError(thrown);
      if (error.code === 'internal') log.error({ err: error.cause, requestId: request.requestId }, 'the call failed');
      throw error;
    } finally {
      lost = await application.close(FLUSH_DEADLINE_MS);
    }
    if (lost > 0) throw new AppError('unavailable', 'The answer stands, but its usage could not be recorded.');
  });
}

/** What a call needs beside the schema: partitions for its rows and, for a write, to hear the acknowledgements of instances. */
async function makeReady(application: Application, { operation }: OperationRequest, { log }: CommandParts) {
  const partitions = await keepPartitionsAhead({ database: application.database, log, wallClockMs: Date.now });
  partitions.close();
  if (!operation.readOnly) await application.start();
}

interface Calling {
  readonly request: OperationRequest;
  readonly identify: () => Promise<Principal>;
  readonly parts: CommandParts;
  readonly answer: (output: unknown) => Promise<void>;
}

async function invoke(application: Application, { request, identify, parts, answer }: Calling): Promise<void> {
  const operation = application.operations.find(({ name }) => name === request.operation.name);
  if (operation === undefined) throw new Error(`${request.operation.name} is described but not wired`);
  const { signal } = parts;
  const principal = await unlessAborted(identify(), signal);
  const running = application.invoke(
    operation,
    {
      principal,
      requestId: request.requestId,
      transport: 'cli',
      ipAddress: null,
      userAgent: `iora-cli/${version}`,
      signal,
    },
    request.input,
  );
  // A write is seen through, so that whoever interrupts it still learns what became of it.
  const outcome = await (operation.readOnly ? unlessAborted(running, signal) : running);
  if (!outcome.ok) throw outcome.error;
  await answer(outcome.output);
}

type Identify = (application: Application, secrets: Secrets) => Promise<Principal>;

/** How to find out as whom the operation runs. Throws UsageError at once where it is not said well. */
function identifier({ user, org }: OperationRequest, config: Config): Identify {
  if (user === null) return () => Promise.resolve(installationOperator);
  if (hasIdentityProvider(config)) {
    const named = readNamedPerson(user, org);
    return async ({ database }, { dataKeys }) => actingAs(await database.call((tx) => findPerson(tx, dataKeys, named)));
  }
  const { email, org: slug } = readPerson(user, org);
  return async ({ people }) =>
    actingAs(
      await people.resolve({
        issuer: LOCAL_ISSUER,
        subject: email,
        email,
        organization: slug === undefined ? null : { externalId: slug, slug, name: slug, role: null },
        sessionId: null,
        issuedAt: new Date(),
      }),
    );
}

function actingAs(person: Person | null): Principal {
  if (person?.active !== true)
    throw new AppError('unauthenticated', 'This person or organization is suspended or closed.');
  return operatorPrincipal(person);
}
