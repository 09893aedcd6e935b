import type { Operation } from '../../kernel/operation.ts';
import type { CommandSpec } from './command-spec.ts';
import { flagsOf } from './flags.ts';
import { isOfOperator, offered, operationSpec } from './operation-commands.ts';
import { processCommands } from './process-commands.ts';

const introduction = `# Command line

\`bin/iora\` in a checkout, or \`npm run iora --\`. Every command works beside a running server on the same \`IORA_DATA_DIR\`
and without one; it is configured by the same environment variables, but writes only log lines from \`warn\` up unless
\`LOG_LEVEL\` says otherwise. Standard output carries the answer alone: lines and tables for people, one line of JSON with
\`--json\`. Refusals go to standard error, with \`--json\` as the same problem document that HTTP answers.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | refused or failed |
| 2 | wrong use of the command line |
| 78 | the configuration has problems |
| 130, 143 | interrupted by SIGINT, SIGTERM |

A flag that takes a list can be repeated or be given a comma-separated list; \`null\` clears a value that may be cleared.
`;

/** The reference page of the command line, in Markdown. */
export function cliReference(operations: readonly Operation[]): string {
  const own = processCommands.map(([, spec]) => commandSection(spec, []));
  const derived = offered(operations).map((operation) =>
    commandSection(operationSpec(operation), [notesOf(operation), '', '```sh', exampleLine(operation), '```', '']),
  );
  return [introduction, '## The installation\n', ...own, '## Operations\n', ...derived].join('\n');
}

/** What it is elsewhere, what it needs and what it costs. */
function notesOf(operation: Operation): string {
  const { route, permission, cost, transports } = operation;
  const sameAs = transports.includes('http') ? `The same as \`${route.method} ${route.path}\`` : 'Offered here only';
  if (isOfOperator(operation)) return `${sameAs}; here it runs as the operator of the installation.`;
  const needs = permission === null ? '' : `; needs \`${permission}\``;
  return `${sameAs}${needs}${cost === 0 ? '' : `; counts ${cost} against limit and quota`}.`;
}

function commandSection(spec: CommandSpec, notes: readonly string[]): string {
  const rows = [
    ...spec.positionals.map(({ name, description }) => [`<${name}>`, description] as const),
    ...spec.options.map(({ flags, description }) => [flags, description] as const),
  ];
  return [
    `### \`${['iora', ...spec.words, ...spec.positionals.map(({ name }) => `<${name}>`)].join(' ')}\``,
    '',
    `${spec.summary}.`,
    '',
    ...notes,
    '| | |',
    '|---|---|',
    ...rows.map(([name, description]) => `| \`${cell(name)}\` | ${cell(description)} |`),
    '',
  ].join('\n');
}

function cell(text: string): string {
  return text.replaceAll('|', '\\|');
}

/** The operation's example as it would be typed. */
function exampleLine(operation: Operation): string {
  const { words } = operationSpec(operation);
  const given = flagsOf(operation).filter(({ property }) => operation.example[property] !== undefined);
  const values = given.map((flag) => {
    const value = operation.example[flag.property];
    if (flag.positional) return quoted(String(value));
    if (typeof value === 'boolean') return value ? `--${flag.word}` : `--no-${flag.word}`;
    return `--${flag.word} ${quoted(typeof value === 'object' && !Array.isArray(value) ? JSON.stringify(value) : String(value))}`;
  });
  const who = isOfOperator(operation) ? [] : ['--user ada@example.com'];
  return ['iora', ...words, ...who, ...values].join(' ');
}

function quoted(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
