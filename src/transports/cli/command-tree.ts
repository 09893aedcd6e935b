import { type Command, Option } from 'commander';
import type { CommandSpec, Given } from './command-spec.ts';

/** Adds a command, and the noun it stands under where it has two words. */
export function addCommand(program: Command, spec: CommandSpec, run: (given: Given) => Promise<void>): void {
  const [first, second] = spec.words;
  const parent = second === undefined ? program : groupOf(program, first);
  const command = parent.command(second ?? first).description(spec.summary);
  // A noun is described by its verbs.
  if (parent !== program) parent.description(parent.commands.map((verb) => verb.name()).join(', '));
  // None is required here: what is missing is told by whoever takes it, the same as on every transport.
  for (const { name, description } of spec.positionals) command.argument(`[${name}]`, description);
  for (const { flags, description, repeatable } of spec.options) {
    const option = new Option(flags, description);
    if (repeatable) option.argParser(gather);
    command.addOption(option);
  }
  command.usage(['[options]', ...spec.positionals.map(({ name }) => `<${name}>`)].join(' '));
  command.action(() => run({ positionals: command.args, options: givenOptions(command) }));
}

/** Into the one list: copying what came before for every flag would take the square of their number. */
function gather(text: string, before: string[] = []): string[] {
  before.push(text);
  return before;
}

/** A command in a list of commands: its name and its positional arguments. */
export function commandTerm(command: Command): string {
  return [command.name(), ...command.registeredArguments.map((argument) => `<${argument.name()}>`)].join(' ');
}

/** The help command of the deepest command that the words name. */
export function helpCommandFor(program: Command, words: readonly string[]): string {
  let command = program;
  const path = ['iora'];
  for (const word of words) {
    const next = command.commands.find((candidate) => candidate.name() === word);
    if (next === undefined) break;
    command = next;
    path.push(word);
  }
  return `${path.join(' ')} --help`;
}

function groupOf(program: Command, noun: string): Command {
  const found = program.commands.find((command) => command.name() === noun);
  return found ?? program.command(noun).helpCommand(false).usage('<verb>');
}

function givenOptions(command: Command): Given['options'] {
  const given = new Map<string, string | boolean | readonly string[]>();
  for (const option of command.options) {
    const value: unknown = command.getOptionValue(option.attributeName());
    // A switch and its opposite share one value.
    if (value !== undefined)
      given.set(option.name().replace(/^no-/, ''), value as string | boolean | readonly string[]);
  }
  return given;
}
