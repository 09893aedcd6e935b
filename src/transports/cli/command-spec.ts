/** What a command looks like from outside; the program, its help and the reference page are made from it. */
export interface CommandSpec {
  /** `['keys', 'create']`, or one word. */
  readonly words: readonly [string] | readonly [string, string];
  readonly summary: string;
  /** Positional arguments, in order. */
  readonly positionals: readonly { readonly name: string; readonly description: string }[];
  readonly options: readonly OptionSpec[];
}

export interface OptionSpec {
  /** `--name <text>`. */
  readonly flags: string;
  readonly description: string;
  /** May be given several times; all of them count. */
  readonly repeatable?: boolean;
}

/** What was given to a command; an option under its flag's words without the dashes in front. */
export interface Given {
  readonly positionals: readonly string[];
  readonly options: ReadonlyMap<string, string | boolean | readonly string[]>;
}

/** What a command has to say: on standard output as lines for people, or with `--json` as JSON. */
export interface Answer {
  readonly output: unknown;
  /** The lines for people where they are not simply the output's fields. */
  readonly text?: string;
  /** Why the answer is bad news; goes to standard error, and the exit code is 1. */
  readonly failure?: Error;
}

export const jsonOption: OptionSpec = { flags: '--json', description: 'Answer, or refusal, as one line of JSON' };
