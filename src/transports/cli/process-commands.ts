import { type Answer, type CommandSpec, type Given, jsonOption } from './command-spec.ts';

/** The commands that are no operations: they start, prepare or look at an installation. */

const who = [
  { flags: '--user <email>', description: 'Whose token it is' },
  { flags: '--org <slug>', description: 'Organization to act in; made with this person as owner when it is new' },
];

const specs = {
  serve: {
    words: ['serve'],
    summary: 'Run the server in the foreground, the same as npm start',
    positionals: [],
    options: [jsonOption],
  },
  migrateUp: {
    words: ['migrate', 'up'],
    summary: 'Bring the database to the schema of this release',
    positionals: [],
    options: [
      { flags: '--to <name>', description: 'Stop after this migration, such as 003_create_api_keys' },
      { flags: '--dry-run', description: 'Print the SQL that would run and change nothing' },
      jsonOption,
    ],
  },
  migrateDown: {
    words: ['migrate', 'down'],
    summary: 'Take back the newest migrations, and the data that only they hold',
    positionals: [],
    options: [{ flags: '--count <number>', description: 'How many (default 1)' }, jsonOption],
  },
  migrateStatus: {
    words: ['migrate', 'status'],
    summary: 'Show which migrations are applied and which are not',
    positionals: [],
    options: [jsonOption],
  },
  migrateNew: {
    words: ['migrate', 'new'],
    summary: 'Make the file of the next migration',
    positionals: [{ name: 'name', description: 'Lower-case words joined by _, such as create_users' }],
    options: [jsonOption],
  },
  authToken: {
    words: ['auth', 'token'],
    summary: 'Sign a session token with the local identity provider, for development only',
    positionals: [],
    options: [...who, { flags: '--admin', description: 'As an administrator of the platform' }, jsonOption],
  },
  keysInspect: {
    words: ['keys', 'inspect'],
    summary:
      'Say what a key is, given on standard input and never printed; exit code 0 when it is known, 1 when not, 2 without input',
    positionals: [],
    options: [jsonOption],
  },
  keysPeppers: {
    words: ['keys', 'peppers'],
    summary: 'Count the live secrets on each pepper; exit code 1 when one of those peppers is not configured',
    positionals: [],
    options: [jsonOption],
  },
  health: {
    words: ['health'],
    summary: 'Ask the database whether this release can serve from it; exit code 1 when it cannot',
    positionals: [],
    options: [jsonOption],
  },
  config: {
    words: ['config'],
    summary: 'Show every setting in effect and where it comes from; secrets only as set or not set',
    positionals: [],
    options: [jsonOption],
  },
} as const satisfies Record<string, CommandSpec>;

/** What the commands do; undefined where the process stays and ends by itself. */
export type ProcessActions = Readonly<Record<keyof typeof specs, (given: Given) => Promise<Answer | undefined>>>;

/** Name and description of each. */
export const processCommands: readonly (readonly [keyof ProcessActions, CommandSpec])[] = Object.entries(
  specs as Record<keyof ProcessActions, CommandSpec>,
) as [keyof ProcessActions, CommandSpec][];
