import { inputSchema, type Operation } from '../../kernel/operation.ts';

/**
 * How the input of an operation is given on a command line. Nothing is judged here: text that does not fit its field is
 * handed on as it is, so that `invoke` refuses it with the same problem as over any other transport.
 */
export interface Flag {
  /** Name of the field in the input. */
  readonly property: string;
  /** `requests-per-minute` for a flag, the field's name for a positional argument. */
  readonly word: string;
  /** A parameter of the route's path. */
  readonly positional: boolean;
  readonly kind: ValueKind;
  readonly nullable: boolean;
  readonly required: boolean;
  /** What stands for the value in help texts; empty for a switch. */
  readonly placeholder: string;
  readonly description: string;
}

type ScalarKind = 'text' | 'number' | 'boolean' | 'json';
type ValueKind = ScalarKind | { readonly listOf: ScalarKind };

/** The words that every command of an operation keeps for itself. */
const RESERVED = ['user', 'org', 'json', 'help', 'version'];

/** The flags and positional arguments of an operation, in the order of its schema. Throws for a word that is taken. */
export function flagsOf(operation: Operation): readonly Flag[] {
  const { properties = {}, required = [] } = inputSchema(operation) as ObjectSchema;
  const inPath = [...operation.route.path.matchAll(/\{(\w+)\}/g)].map((match) => match[1]);
  return Object.entries(properties).map(([property, schema]) => {
    const positional = inPath.includes(property);
    const word = positional ? property : kebab(property);
    if (!positional && (RESERVED.includes(word) || word.startsWith('no-'))) {
      throw new Error(`${operation.name}: the flag --${word} would hide one that every command has`);
    }
    const value = withoutNull(schema);
    return {
      property,
      word,
      positional,
      kind: kindOf(schema, value),
      nullable: value !== schema,
      required: required.includes(property),
      placeholder: placeholderOf(schema, value),
      description: describe(schema, value),
    };
  });
}

/** `getPrice` and `get_price` as `get-price`. */
export function kebab(name: string): string {
  return name
    .replace(/([a-z0-9])([A-Z])/g, '$1-$2')
    .replaceAll('_', '-')
    .toLowerCase();
}

/** How a flag is written in help texts: `--name <text>`, `--dry-run`. */
export function flagWords(flag: Flag): string {
  return flag.placeholder === '' ? `--${flag.word}` : `--${flag.word} <${flag.placeholder}>`;
}

/** The value of a field from what was given for it: one text, the texts of a repeated flag, or a switch. */
export function readValue(flag: Flag, given: string | readonly string[] | boolean): unknown {
  if (typeof given === 'boolean') return given;
  const texts = typeof given === 'string' ? [given] : given;
  const last = texts.at(-1) ?? '';
  if (flag.nullable && texts.length === 1 && last === 'null') return null;
  if (typeof flag.kind === 'string') return readScalar(flag.kind, last);
  const { listOf } = flag.kind;
  return texts.flatMap((text) => (text === '' ? [] : text.split(','))).map((item) => readScalar(listOf, item));
}

function readScalar(kind: ScalarKind, text: string): unknown {
  if (kind === 'number') return /^-?\d+(?:\.\d+)?$/.test(text) ? Number(text) : text;
  if (kind === 'boolean') return text === 'true' ? true : text === 'false' ? false : text;
  if (kind === 'text') return text;
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** The part of JSON Schema that zod writes for our inputs. */
interface Schema {
  readonly type?: string | readonly string[];
  readonly enum?: readonly unknown[];
  readonly format?: string;
  readonly anyOf?: readonly Schema[];
  readonly items?: Schema;
  readonly default?: unknown;
  readonly description?: string;
}

interface ObjectSchema {
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
}

/** The other alternative of `X or null`; the schema itself where null is not allowed. */
function withoutNull(schema: Schema): Schema {
  const { type } = schema;
  // A bare type is written as a list of types, one with constraints as alternatives.
  const options = typeof type === 'object' ? type.map((name) => ({ type: name })) : (schema.anyOf ?? []);
  const [only, ...others] = options.filter((option) => option.type !== 'null');
  return only !== undefined && others.length === 0 && options.length === 2 ? only : schema;
}

function kindOf(schema: Schema, value: Schema): ValueKind {
  const kind = scalarKind(value);
  // A switch can say yes and no; where null is a third answer it takes a value, as JSON.
  if (kind === 'boolean' && value !== schema) return 'json';
  if (value.type !== 'array' || value.items === undefined) return kind;
  return { listOf: scalarKind(value.items) };
}

function scalarKind(schema: Schema): ScalarKind {
  if (schema.type === 'string') return 'text';
  if (schema.type === 'integer' || schema.type === 'number') return 'number';
  return schema.type === 'boolean' ? 'boolean' : 'json';
}

function placeholderOf(schema: Schema, value: Schema): string {
  const kind = kindOf(schema, value);
  if (kind === 'boolean') return '';
  const name =
    value.enum?.join('|') ??
    (typeof kind === 'object' ? 'list' : ({ uuid: 'id', 'date-time': 'time' }[value.format ?? ''] ?? kind));
  return value === schema ? name : `${name}|null`;
}

function describe(schema: Schema, value: Schema): string {
  const facts: string[] = [];
  if (value.type === 'array') {
    const choices = value.items?.enum?.join(', ');
    facts.push(`comma-separated or repeated${choices === undefined ? '' : `: ${choices}`}`);
  }
  if (schema.default !== undefined) facts.push(`default ${[schema.default].flat().join(',')}`);
  return [schema.description ?? value.description ?? '', facts.length === 0 ? '' : `(${facts.join('; ')})`]
    .filter((part) => part !== '')
    .join(' ');
}
