// Operations and `invoke` as they are, with a note taken of what reached them.
import type { Invoke } from '../../src/kernel/invoke.ts';
import type { Operation } from '../../src/kernel/operation.ts';
import type { TestApplication } from './application.ts';

/** Request ids looked back at: far more than are under way at once. */
const REQUESTS_KEPT_MAX = 10_000;
/** One failure tends to bring others with it. */
const FAILURES_TOLD_MAX = 5;

/** The operations with a note taken of every `run`, and `invoke` with one of every input. */
export function watchOperations(app: TestApplication) {
  const inputs = new Map<string, { readonly input: unknown }>();
  const runs = new Map<string, true>();
  const operations = app.app.operations.map(
    (operation): Operation => ({
      ...operation,
      run(context, input) {
        keep(runs, context.requestId, true);
        return operation.run(context, input);
      },
    }),
  );
  const failures: string[] = [];
  const invoke: Invoke = async (operation, call, input) => {
    keep(inputs, call.requestId, { input });
    const outcome = await app.app.invoke(operation, call, input);
    if (!outcome.ok && outcome.error.status >= 500) failures.push(`${operation.name}: ${causesOf(outcome.error)}`);
    return outcome;
  };
  return {
    operations,
    invoke,
    given: (requestId: string) => inputs.get(requestId),
    ran: (requestId: string) => runs.has(requestId),
    /** What lay behind the failures on our side. */
    failures: (): readonly string[] => failures.slice(0, FAILURES_TOLD_MAX),
  };
}

/** The error and everything that caused it, the outermost first. */
function causesOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause === undefined ? String(error.stack) : `${error.message} <- ${causesOf(error.cause)}`;
}

function keep<Value>(kept: Map<string, Value>, requestId: string, value: Value): void {
  if (kept.size >= REQUESTS_KEPT_MAX)
    for (const oldest of kept.keys()) {
      kept.delete(oldest);
      break;
    }
  kept.set(requestId, value);
}
