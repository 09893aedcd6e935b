// Inputs for an operation, derived from its own input schema: such as it accepts, and such as somebody hostile, careless
// or merely confused would send. What has to exist in the database stands in them as a reference, resolved when sent.
import fc from 'fast-check';
import { assets, currencies } from '../../src/features/market/symbols.ts';
import { inputSchema, type Operation } from '../../src/kernel/operation.ts';
import {
  anyCharacters,
  damaged,
  hostileNames,
  hostileTexts,
  hostileValues,
  oddNames,
  oversizedValues,
} from './hostile-values.ts';

/** What a caller may name that lies in the database: keys of its owner, of a colleague, of another tenant; cursors. */
export type ReferenceKind =
  | 'liveKey'
  | 'revokedKey'
  | 'expiredKey'
  | 'colleagueKey'
  | 'foreignKey'
  | 'cursor'
  | 'foreignCursor';

const referenceMark = Symbol('reference');

/** Stands for the id or cursor number `index` (modulo how many there are) of that kind, changed by `spelling`. */
export interface Reference {
  readonly [referenceMark]: true;
  readonly kind: ReferenceKind;
  readonly index: number;
  readonly spelling: 'as it is' | 'upper case' | 'cut short' | 'continued' | 'one character changed';
}

/** The part of JSON Schema that zod writes for inputs. */
interface Schema {
  readonly type?: string;
  readonly enum?: readonly unknown[];
  readonly anyOf?: readonly Schema[];
  readonly items?: Schema;
  readonly pattern?: string;
  readonly format?: string;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly minItems?: number;
  readonly maxItems?: number;
}

export type Fields = Readonly<Record<string, unknown>>;

/** Shares of the inputs by how they are made; hostile callers and full limits take their part of the acceptable ones. */
const WEIGHTS = { acceptable: 13, mutated: 6, noObject: 1 };

/** Where a schema names no bound. */
const TEXT_LENGTH_MAX = 64;
const MUTATIONS_MAX = 3;

/** Inputs of an operation. Throws where the schema holds something that nothing is known to fit. */
export function inputsOf(operation: Operation): fc.Arbitrary<unknown> {
  const { properties = {}, required = [] } = inputSchema(operation) as {
    properties?: Readonly<Record<string, Schema>>;
    required?: string[];
  };
  const acceptable = fc.record(
    Object.fromEntries(Object.entries(properties).map(([name, schema]) => [name, fitting(name, schema)])),
    { requiredKeys: required },
  ) as fc.Arbitrary<Fields>;
  const mutation = mutationsOf(properties);
  const mutated = fc
    .tuple(acceptable, fc.oneof(fc.tuple(mutation), fc.array(mutation, { minLength: 2, maxLength: MUTATIONS_MAX })))
    .map(([input, mutations]) => mutations.reduce((value, mutate) => mutate(value), input));
  const noObject = fc.oneof(fc.constantFrom<unknown>(null, [], [{}], '', 'BTC', 0, true), fc.jsonValue());
  return fc.oneof(
    { weight: WEIGHTS.acceptable, arbitrary: acceptable },
    { weight: WEIGHTS.mutated, arbitrary: mutated },
    { weight: WEIGHTS.noObject, arbitrary: noObject },
  );
}

/** The input with every reference in it replaced by what `lookUp` answers for it. */
export function resolveReferences(value: unknown, lookUp: (reference: Reference) => string): unknown {
  if (isReference(value)) return spelled(lookUp(value), value.spelling);
  if (Array.isArray(value)) return value.map((item) => resolveReferences(item, lookUp));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, resolveReferences(item, lookUp)]));
}

/** The references in an input. */
export function referencesIn(value: unknown): readonly Reference[] {
  if (isReference(value)) return [value];
  return typeof value === 'object' && value !== null ? Object.values(value).flatMap(referencesIn) : [];
}

function isReference(value: unknown): value is Reference {
  return typeof value === 'object' && value !== null && referenceMark in value;
}

function spelled(text: string, spelling: Reference['spelling']): string {
  const middle = Math.floor(text.length / 2);
  switch (spelling) {
    case 'as it is':
      return text;
    case 'upper case':
      return text.toUpperCase();
    case 'cut short':
      return text.slice(0, -1);
    case 'continued':
      return `${text}A`;
    case 'one character changed':
      return `${text.slice(0, middle)}${text[middle] === 'A' ? 'B' : 'A'}${text.slice(middle + 1)}`;
  }
}

function reference(kinds: readonly ReferenceKind[], spellings: readonly Reference['spelling'][]) {
  return fc
    .record({ kind: fc.constantFrom(...kinds), index: fc.nat(999), spelling: fc.constantFrom(...spellings) })
    .map((made): Reference => ({ [referenceMark]: true, ...made }));
}

const someCase = (text: string) =>
  fc.constantFrom(text, text, text.toLowerCase(), `${text.slice(0, 1)}${text.slice(1).toLowerCase()}`);

const withoutControls = (text: string) => `k${text.replace(/\p{Cc}/gu, '')}`;

/** Values that mean something, by the name of their field: what the schema alone cannot tell. */
const meaningful: Readonly<Record<string, fc.Arbitrary<unknown>>> = {
  symbol: fc.oneof(
    { weight: 12, arbitrary: fc.constantFrom(...assets.map(({ symbol }) => symbol)).chain(someCase) },
    { weight: 1, arbitrary: fc.stringMatching(/^[A-Za-z0-9:_.-]{1,32}$/) },
  ),
  currency: fc.oneof(
    { weight: 12, arbitrary: fc.constantFrom(...currencies).chain(someCase) },
    { weight: 1, arbitrary: fc.stringMatching(/^[A-Za-z]{3}$/) },
  ),
  query: fc.oneof(
    fc.constantFrom('bit', 'BTC', 'a', 'coin', ' ', '%', '_', 'ß', 'ﬁ'),
    fc.string({ unit: 'grapheme', minLength: 1, maxLength: 10 }),
    anyCharacters,
  ),
  id: fc.oneof(
    { weight: 8, arbitrary: reference(['liveKey'], ['as it is']) },
    { weight: 1, arbitrary: reference(['liveKey'], ['upper case']) },
    { weight: 3, arbitrary: reference(['revokedKey', 'expiredKey', 'colleagueKey', 'foreignKey'], ['as it is']) },
    { weight: 1, arbitrary: fc.uuid() },
    { weight: 1, arbitrary: reference(['liveKey'], ['cut short', 'continued', 'one character changed']) },
  ),
  cursor: fc.oneof(
    { weight: 6, arbitrary: reference(['cursor'], ['as it is']) },
    { weight: 1, arbitrary: reference(['foreignCursor'], ['as it is']) },
    { weight: 2, arbitrary: reference(['cursor'], ['cut short', 'continued', 'one character changed']) },
    { weight: 1, arbitrary: fc.base64String({ minLength: 1, maxLength: 60 }) },
  ),
  name: fc.oneof(
    {
      weight: 4,
      arbitrary: fc.constantFrom(
        ...[
          'backend',
          "o'hara",
          'ключ',
          '键',
          '🔑',
          ' padded ',
          'null',
          '-dash',
          '--json',
          'a,b',
          'x=y',
          '"',
          '\u2028',
        ],
      ),
    },
    { weight: 4, arbitrary: fc.string({ unit: 'grapheme', minLength: 1, maxLength: 30 }).map(withoutControls) },
    { weight: 1, arbitrary: anyCharacters.map(withoutControls) },
  ),
};

/** Moments ahead: of the usual kind, at the edges of the calendar, in every zone. */
const futureTimes = fc.oneof(
  fc
    .date({ min: new Date('2099-01-01'), max: new Date('9990-01-01'), noInvalidDate: true })
    .map((moment) => moment.toISOString()),
  fc.constantFrom(
    '2099-12-31T23:59:59Z',
    '2096-02-29T00:00:00.000Z',
    '2099-06-30T12:00:00+14:00',
    '2099-06-30T12:00:00.123456789-23:59',
    '9999-12-31T23:59:59.999Z',
    // Well formed, and past the last year that can be written.
    '9999-12-31T23:59:59-23:59',
  ),
);

/** A value that fits the schema of the field, as far as a schema tells. */
function fitting(name: string, schema: Schema): fc.Arbitrary<unknown> {
  if (schema.anyOf !== undefined) return fc.oneof(...schema.anyOf.map((option) => fitting(name, option)));
  if (schema.enum !== undefined) return fc.constantFrom(...schema.enum);
  switch (schema.type) {
    case 'null':
      return fc.constant(null);
    case 'boolean':
      return fc.boolean();
    case 'integer':
      return fc.integer({ min: schema.minimum ?? -1_000, max: schema.maximum ?? 1_000 });
    case 'number':
      return fc.double({ min: schema.minimum ?? -1_000, max: schema.maximum ?? 1_000, noNaN: true });
    case 'array':
      return fc.uniqueArray(fitting(name, schema.items ?? { type: 'string' }), {
        minLength: schema.minItems ?? 0,
        maxLength: schema.maxItems ?? 5,
      });
    case 'string':
      return text(name, schema);
    default:
      throw new Error(`nothing is known to fit ${name}: ${JSON.stringify(schema)}`);
  }
}

function text(name: string, { pattern, format, minLength = 0, maxLength = TEXT_LENGTH_MAX }: Schema) {
  const known = meaningful[name];
  if (known !== undefined) return known;
  if (format === 'date-time') return futureTimes;
  if (pattern !== undefined) return fc.stringMatching(new RegExp(pattern, 'u'));
  return fc.string({ unit: 'grapheme', minLength, maxLength });
}

type Mutation = (input: Fields) => Fields;

/** Ways to spoil an input: fields of the schema set, bent, left out or doubled, and fields it does not know. */
function mutationsOf(properties: Readonly<Record<string, Schema>>): fc.Arbitrary<Mutation> {
  const names = Object.keys(properties);
  const unknown = fc.tuple(fc.oneof(fc.constantFrom(...oddNames), hostileNames), hostileValues).map(
    ([name, value]): Mutation =>
      (input) =>
        withField(input, name, value),
  );
  if (names.length === 0) return unknown;

  const name = fc.constantFrom(...names);
  const set = (values: fc.Arbitrary<unknown>) => fc.tuple(name, values).map(([at, value]) => setting(at, () => value));
  // In a field of another type a text is one more wrong type; in one of text it has to be looked at.
  const texts = names.filter((field) => properties[field]?.type === 'string');
  const setText = fc.tuple(fc.constantFrom(...texts), hostileTexts).map(([at, value]) => setting(at, () => value));
  return fc.oneof(
    { weight: 8, arbitrary: unknown },
    { weight: 16, arbitrary: set(hostileValues) },
    ...(texts.length === 0 ? [] : [{ weight: 8, arbitrary: setText }]),
    { weight: 1, arbitrary: set(oversizedValues) },
    { weight: 12, arbitrary: fc.tuple(name, damaged).map(([at, damage]) => setting(at, damage)) },
    {
      weight: 8,
      arbitrary: name.chain((at) => atTheEdge(properties[at] ?? {}).map((value) => setting(at, () => value))),
    },
    {
      weight: 4,
      arbitrary: name.map(
        (at): Mutation =>
          ({ [at]: _left, ...rest }) =>
            rest,
      ),
    },
  );
}

function setting(name: string, change: (value: unknown) => unknown): Mutation {
  return (input) => withField(input, name, change(input[name] ?? null));
}

/** A computed name makes a field of its own even of `__proto__`. */
function withField(input: Fields, name: string, value: unknown): Fields {
  return { ...input, [name]: value };
}

/** Values on both sides of the bounds that a schema names. */
function atTheEdge(schema: Schema): fc.Arbitrary<unknown> {
  const { minimum, maximum, minLength, maxLength = TEXT_LENGTH_MAX, items } = schema.anyOf?.[0] ?? schema;
  if (items !== undefined) {
    const item = fitting('', items);
    return fc.oneof(
      fc.constant([]),
      item.map((value) => [value, value]),
      fc.array(item, { minLength: 6, maxLength: 12 }),
    );
  }
  if (minimum !== undefined && maximum !== undefined) {
    return fc.constantFrom<unknown>(
      minimum,
      minimum - 1,
      maximum,
      maximum + 1,
      maximum - 0.5,
      String(maximum),
      -maximum,
    );
  }
  return fc.constantFrom(
    'a'.repeat(minLength ?? 1),
    'a'.repeat((minLength ?? 1) - 1),
    'a'.repeat(maxLength),
    'a'.repeat(maxLength + 1),
    '𝒳'.repeat(Math.ceil(maxLength / 2)),
    ' '.repeat(maxLength),
  );
}
