import { randomUUID } from 'node:crypto';
import { Command, CommanderError } from 'commander';
import type { Operation } from '../../kernel/operation.ts';
import { InterruptedError, UsageError } from './command-errors.ts';
import type { Answer, Given } from './command-spec.ts';
import { addCommand, commandTerm, helpCommandFor } from './command-tree.ts';
import type { OperationRequest } from './operation-commands.ts';
import { type ProcessActions, processCommands } from './process-commands.ts';
import { render } from './render.ts';

/** What the command line needs of the process around it. */
export interface CliParts {
  readonly version: string;
  readonly actions: ProcessActions;
  /** The operations as they are described; only `call` runs them. */
  readonly loadOperations: () => Promise<readonly Operation[]>;
  /** Runs an operation, hands its output to `answer` as soon as there is one, and cleans up. Throws AppError for a refusal. */
  readonly call: (request: OperationRequest, answer: (output: unknown) => Promise<void>) => Promise<void>;
  /** What to say about an error that is no refusal, and the exit code. */
  readonly describeFailure: (error: unknown) => Promise<{ message: string; exitCode: number }>;
  /** Resolves when the operating system has the text. */
  readonly write: (stream: 'stdout' | 'stderr', text: string) => Promise<void>;
}

const EXIT_OK = 0;
const EXIT_FAILED = 1;
const EXIT_WRONG_USE = 2;

type ExitCode = number | undefined;

/**
 * Runs one command line, given without the program's own name. Standard output carries the answer and nothing else.
 * Resolves to the exit code, or to undefined where the process stays.
 */
export async function runCli(words: readonly string[], parts: CliParts): Promise<ExitCode> {
  let exitCode: ExitCode = EXIT_OK;
  const written: ['stdout' | 'stderr', string][] = [];
  const program = new Command('iora')
    .description('Metered crypto-market tools for people and AI agents.')
    .version(parts.version, '--version', 'Print the version')
    .helpOption('-h, --help', 'Print this help')
    .helpCommand(false)
    .usage('<command>')
    .configureHelp({ subcommandTerm: commandTerm })
    .exitOverride()
    .configureOutput({
      writeOut: (text) => written.push(['stdout', text]),
      writeErr: (text) => written.push(['stderr', text]),
      // What is wrong is said below, on one line.
      outputError: () => undefined,
    })
    .addHelpText('after', '\nExit codes: 0 done, 1 refused or failed, 2 wrong use, 78 configuration, 130 interrupted.');

  for (const [name, spec] of processCommands) {
    addCommand(program, spec, async (given) => {
      exitCode = await run(parts, { given, operation: null }, async () => {
        const answer = await parts.actions[name](given);
        return answer === undefined ? undefined : print(parts, given, answer);
      });
    });
  }
  // Loading the operations takes longer than many of the other commands run. Some nouns have commands of both kinds.
  const isProcessCommand = processCommands.some(([, spec]) => spec.words.every((word, at) => word === words[at]));
  if (words[0] !== '--version' && !isProcessCommand) {
    const { offered, operationSpec, readRequest } = await import('./operation-commands.ts');
    for (const operation of offered(await parts.loadOperations())) {
      addCommand(program, operationSpec(operation), async (given) => {
        exitCode = await run(parts, { given, operation }, async (requestId) => {
          const request = readRequest(operation, given, requestId);
          await parts.call(request, async (output) => void (await print(parts, given, { output })));
          return EXIT_OK;
        });
      });
    }
  }

  try {
    await program.parseAsync(words, { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    exitCode = error.exitCode === 0 ? EXIT_OK : EXIT_WRONG_USE;
    if (exitCode === EXIT_WRONG_USE && error.code !== 'commander.help') {
      const reason = error.message.replace(/^error: /, '').replace(/\s+/g, ' ');
      written.push(['stderr', `iora: ${reason}; see ${helpCommandFor(program, words)}\n`]);
    }
  }
  for (const [stream, text] of written) await parts.write(stream, text);
  return exitCode;
}

interface Running {
  readonly given: Given;
  /** Null for a command that is none. */
  readonly operation: Operation | null;
}

/** Does the work of a command and says on standard error what went wrong with it. */
async function run(
  parts: CliParts,
  running: Running,
  work: (requestId: string) => Promise<ExitCode>,
): Promise<ExitCode> {
  const requestId = randomUUID();
  try {
    return await work(requestId);
  } catch (error) {
    return await explain(parts, running, error, requestId);
  }
}

async function print(parts: CliParts, given: Given, { output, text, failure }: Answer): Promise<number> {
  await parts.write('stdout', given.options.has('json') ? `${JSON.stringify(output)}\n` : (text ?? render(output)));
  return failure === undefined ? EXIT_OK : explain(parts, { given, operation: null }, failure, randomUUID());
}

async function explain(
  parts: CliParts,
  { given, operation }: Running,
  error: unknown,
  requestId: string,
): Promise<number> {
  const say = (line: string) => parts.write('stderr', `${line}\n`);
  if (error instanceof UsageError || error instanceof InterruptedError) {
    await say(`iora: ${error.message}`);
    return error instanceof UsageError ? EXIT_WRONG_USE : error.exitCode;
  }
  const json = given.options.has('json');
  const [{ AppError }, { refusalJson, refusalLine }] = await Promise.all([
    import('../../kernel/errors.ts'),
    import('./refusal.ts'),
  ]);
  if (error instanceof AppError) {
    await say(json ? refusalJson(error, requestId) : `iora: ${refusalLine(error, operation)}`);
    return EXIT_FAILED;
  }
  const { message, exitCode } = await parts.describeFailure(error);
  await say(json ? JSON.stringify({ title: 'The command failed', detail: message }) : `iora: ${message}`);
  return exitCode;
}
