// Operations and `invoke` as they are, with a note taken of what reached them.
import type { Invoke } from '../../src/kernel/invoke.ts';
import type { Operation } from '../../src/kernel/operation.ts';
import type { TestApplication } from './application.ts';

/** Request ids looked back at: far more than are under way at once. */
const REQUESTS_KEPT_MAX = 10_000;

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
  const invoke: Invoke = (operation, call, input) => {
    keep(inputs, call.requestId, { input });
    return app.app.invoke(operation, call, input);
  };
  return {
    operations,
    invoke,
    given: (requestId: string) => inputs.get(requestId),
    ran: (requestId: string) => runs.has(requestId),
  };
}

function keep<Value>(kept: Map<string, Value>, requestId: string, value: Value): void {
  if (kept.size >= REQUESTS_KEPT_MAX)
    for (const oldest of kept.keys()) {
      kept.delete(oldest);
      break;
    }
  kept.set(requestId, value);
}
