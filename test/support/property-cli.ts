// Cases over the command line: the words that say an input, and words that say nothing sensible.
import assert from 'node:assert/strict';
import type { Call, Principal } from '../../src/kernel/context.ts';
import type { Invoke } from '../../src/kernel/invoke.ts';
import { inputSchema, type Operation } from '../../src/kernel/operation.ts';
import { kebab } from '../../src/transports/cli/flags.ts';
import type { OperationRequest } from '../../src/transports/cli/operation-commands.ts';
import { type CliParts, runCli } from '../../src/transports/cli/program.ts';
import type { Fields } from './operation-arbitraries.ts';
import {
  type Answer,
  assertCode,
  assertOutput,
  assertProblem,
  asText,
  type Carrier,
  isFields,
  type Style,
} from './property-answers.ts';
import type { Caller } from './property-world.ts';

/** Runs command lines in this process, as `main/cli.ts` does, with the callers of the cases for people. */
export function cliCarrier(invoke: Invoke): Carrier {
  async function send(
    operation: Operation,
    words: readonly string[],
    caller: Caller,
    isJson: boolean,
  ): Promise<Answer> {
    const said = { stdout: '', stderr: '' };
    let requestId = '';
    const parts: CliParts = {
      version: '0.0.0',
      actions: {} as CliParts['actions'],
      // Describing all of them anew takes longer than the rest of a command; the tree has its own tests.
      loadOperations: () => Promise.resolve([operation]),
      async call(request, answer) {
        requestId = request.requestId;
        assert.equal(request.operation.name, operation.name);
        const outcome = await invoke(request.operation, callOf(caller, request), request.input);
        if (!outcome.ok) throw outcome.error;
        await answer(outcome.output);
      },
      describeFailure: (error) => Promise.reject(error),
      async write(stream, text) {
        said[stream] += text;
      },
    };
    const exitCode = await runCli(words, parts);
    const text = said.stdout + said.stderr;
    const common = { transport: 'cli', requestId, text } as const;

    if (exitCode === 0) {
      assert.equal(said.stderr, '');
      if (requestId === '') {
        assert.ok(words.includes('--help') || words.includes('-h'), 'only who asks for help is done without a call');
        assert.match(said.stdout, /^Usage: iora /);
        return { ...common, code: 'usage' };
      }
      if (!isJson) return { ...common, code: 'ok' };
      const output = onlyLine(said.stdout);
      assertOutput(operation, output);
      return { ...common, code: 'ok', output };
    }
    assert.equal(said.stdout, '', 'standard output holds answers only');
    assert.match(said.stderr, /^[^\n]+\n$/, 'what went wrong is said on one line');
    if (exitCode === 2) return { ...common, code: 'usage' };
    assert.equal(exitCode, 1);
    if (isJson) {
      const problem = assertProblem(onlyLine(said.stderr), requestId);
      return { ...common, code: problem.code, problem };
    }
    const code = /^iora: .*\((\w+)\)\n$/.exec(said.stderr)?.[1];
    return { ...common, code: assertCode(code) };
  }

  return {
    transport: 'cli',
    carry(operation, input, caller, style) {
      if (caller.operator === null) return 'nobody acts on a command line without a name';
      const line = toWords(operation, input, style);
      if (typeof line === 'string') return line;
      const who = operation.audience === 'operator' ? [] : ['--user', caller.user, '--org', caller.org];
      const before = [...operation.name.replaceAll('_', '-').split('.'), ...who];
      if (style.json) before.push('--json');
      if (style.raw === null) {
        const { words, expected } = line;
        return { expected, send: () => send(operation, [...before, ...words], caller, style.json) };
      }
      const variant = variants[style.raw % variants.length];
      return {
        expected: undefined,
        send: () => send(operation, variant?.(before, line.words) ?? before, caller, style.json),
      };
    },
  };
}

function callOf(caller: Caller, { operation, user, org, requestId }: OperationRequest): Call {
  const who = operation.audience === 'operator' ? [null, undefined] : [caller.user, caller.org];
  assert.deepEqual([user, org], who);
  return {
    principal: caller.operator as Principal,
    requestId,
    transport: 'cli',
    ipAddress: null,
    userAgent: 'iora-cli/0.0.0',
    signal: null,
  };
}

function onlyLine(text: string): unknown {
  assert.match(text, /^[^\n]+\n$/, 'one line of JSON');
  return JSON.parse(text);
}

interface Property {
  readonly type?: string | readonly string[];
  readonly anyOf?: readonly Property[];
}

/** The words for an input and what has to be read from them; a string says why there are none. */
function toWords(
  operation: Operation,
  input: unknown,
  { spaced }: Style,
): { words: readonly string[]; expected: Fields | undefined } | string {
  if (!isFields(input)) return 'a command line names its values';
  const properties = propertiesOf(operation);
  const flags: string[] = [];
  const positionals: string[] = [];
  const expected: Record<string, unknown> = {};
  let foreseen = true;
  for (const [name, value] of Object.entries(input)) {
    const property = Object.hasOwn(properties, name) ? properties[name] : undefined;
    if (property === undefined) {
      if (!/^[a-zA-Z][\w.-]*$/.test(name) || commonFlags.includes(name)) return 'no flag could have such a name';
      flags.push(`--${name}=${asText(value)}`);
      foreseen = false;
    } else if (operation.route.path.includes(`{${name}}`)) {
      positionals.push(asText(value));
      expected[name] = asText(value);
    } else if (typesOf(property).includes('boolean')) {
      if (typeof value !== 'boolean') return 'a switch takes no value';
      flags.push(`--${value ? '' : 'no-'}${kebab(name)}`);
      expected[name] = value;
    } else {
      const flag = `--${kebab(name)}`;
      const texts =
        Array.isArray(value) && typesOf(property).includes('array') ? listTexts(value, spaced) : [asText(value)];
      for (const text of texts) flags.push(...(spaced ? [flag, text] : [`${flag}=${text}`]));
      expected[name] = readBack(typesOf(property), texts);
    }
  }
  const words = [...flags, '--', ...positionals];
  if (!words.every((word) => word.isWellFormed())) return 'a command line holds well-formed text only';
  if (words.some((word) => word.includes('\0'))) return 'a command line has no character 0';
  if (words.some((word) => word.length > WORD_LENGTH_MAX)) return 'the operating system takes no word as long';
  return { words, expected: foreseen ? expected : undefined };
}

const propertiesByName = new Map<string, Readonly<Record<string, Property>>>();

/** The fields of an operation's input, worked out once: that takes longer than the words themselves. */
function propertiesOf(operation: Operation): Readonly<Record<string, Property>> {
  let properties = propertiesByName.get(operation.name);
  if (properties === undefined) {
    ({ properties = {} } = inputSchema(operation) as { properties?: Readonly<Record<string, Property>> });
    propertiesByName.set(operation.name, properties);
  }
  return properties;
}

/** Flags that every command has; a field of such a name would mean something else. */
const commonFlags = ['user', 'org', 'json', 'help', 'version', 'h'];
/** What Linux takes is 131,072 bytes; characters have up to four. */
const WORD_LENGTH_MAX = 32_768;

function typesOf({ type, anyOf }: Property): readonly string[] {
  return anyOf?.flatMap(typesOf) ?? (typeof type === 'string' ? [type] : (type ?? []));
}

function listTexts(items: readonly unknown[], spaced: boolean): string[] {
  if (items.length === 0) return [''];
  return spaced ? [items.map(asText).join(',')] : items.map(asText);
}

/** The rules as the reference of the command line tells them: numbers, lists by commas, `null` where null is allowed. */
function readBack(types: readonly string[], texts: readonly string[]): unknown {
  const [text = ''] = texts;
  if (types.includes('null') && texts.length === 1 && text === 'null') return null;
  if (types.includes('array')) return texts.flatMap((item) => (item === '' ? [] : item.split(',')));
  const isNumber = types.includes('integer') || types.includes('number');
  return isNumber && /^-?\d+(\.\d+)?$/.test(text) ? Number(text) : text;
}

type Variant = (before: readonly string[], words: readonly string[]) => readonly string[];

const variants: readonly Variant[] = [
  (before) => [...before, '--name'],
  (before) => [...before, '--nothing'],
  (before) => [...before, '--limit=1', '--limit=2', '--name=one', '--name=two'],
  (before) => [...before, '--no-json'],
  (before) => [...before, '--json=yes'],
  (before) => [...before, '-x', '-abc'],
  (before) => [...before, '-'],
  (before, words) => [...before, ...words, 'one', 'too', 'many'],
  (before, words) => [...before, ...words.filter((word) => word !== '--')],
  (before, words) => [...before, '--', ...words],
  (before, words) => [...before, '', ...words],
  (before, words) => [...words, ...before],
  (before) => before.filter((word) => word !== '--user'),
  (before) => [...before, '--user'],
  (before) => [...before, '--permissions=,,,', '--permissions', ''],
  (before) => [...before, '--currency', '\u001b[2J\u0007', '--symbol=\r\n'],
];
