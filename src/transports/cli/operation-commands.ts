import type { Operation } from '../../kernel/operation.ts';
import { UsageError } from './command-errors.ts';
import { type CommandSpec, type Given, jsonOption } from './command-spec.ts';
import { flagsOf, flagWords, kebab, readValue } from './flags.ts';

/** An operation as it was asked for on the command line. */
export interface OperationRequest {
  readonly operation: Operation;
  readonly input: Readonly<Record<string, unknown>>;
  /** The person who acts, as it was named; null for the operator of the installation, who acts as nobody. */
  readonly user: string | null;
  /** Organization the person acts in. */
  readonly org: string | undefined;
  readonly requestId: string;
}

const whoOptions = [
  {
    flags: '--user <email>',
    description: 'Who acts; made known when new. With an identity provider only who has signed in, also by id',
  },
  {
    flags: '--org <slug>',
    description:
      'Organization to act in; made with this person as owner when it is new. With an identity provider only one of theirs, also by id',
  },
];

/** `keys.create` as `iora keys create`, with a flag for every field of its input. */
export function operationSpec(operation: Operation): CommandSpec {
  const [noun = '', verb = ''] = operation.name.split('.');
  const flags = flagsOf(operation);
  return {
    words: [noun, kebab(verb)],
    summary: operation.summary,
    positionals: flags
      .filter((flag) => flag.positional)
      .map((flag) => ({ name: flag.word, description: flag.description })),
    options: [
      ...(isOfOperator(operation) ? [] : whoOptions),
      ...flags
        .filter((flag) => !flag.positional)
        .flatMap((flag) => [
          { flags: flagWords(flag), description: flag.description, repeatable: typeof flag.kind === 'object' },
          ...(flag.placeholder === '' ? [{ flags: `--no-${flag.word}`, description: `Not --${flag.word}` }] : []),
        ]),
      jsonOption,
    ],
  };
}

/** What was given as the operation takes it. Throws UsageError when it is not said who acts. */
export function readRequest(operation: Operation, given: Given, requestId: string): OperationRequest {
  const user = isOfOperator(operation) ? null : given.options.get('user');
  if (typeof user !== 'string' && user !== null) throw new UsageError('say who acts: --user EMAIL');
  const org = given.options.get('org');
  const positionals = [...given.positionals];
  const input: Record<string, unknown> = {};
  for (const flag of flagsOf(operation)) {
    const value = flag.positional ? positionals.shift() : given.options.get(flag.word);
    if (value !== undefined) input[flag.property] = readValue(flag, value);
  }
  return { operation, input, user, org: typeof org === 'string' ? org : undefined, requestId };
}

/** Whether it runs as the operator of the installation, so that nobody has to be named. */
export function isOfOperator({ audience }: Operation): boolean {
  return audience === 'operator';
}

/** The operations that are offered here. */
export function offered(operations: readonly Operation[]): readonly Operation[] {
  return operations.filter((operation) => operation.transports.includes('cli'));
}
