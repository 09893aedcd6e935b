// Inputs for an operation, derived from its own input schema: such as it accepts, and such as somebody hostile, careless
// or merely confused would send. What has to exist in the database stands in them as a reference, resolved when sent.
import fc from 'fast-check';
import { inputSchema, type Operation } from '../../src/kernel/operation.ts';
import { damaged, hostileNames, hostileTexts, hostileValues, oddNames, oversizedValues } from './hostile-values.ts';
import { futureTimes, meaningful } from './meaningful-values.ts';

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
  const set = (values: fc.Arbitrary<unknown>, among = names) =>
    fc.tuple(fc.constantFrom(...among), values).map(([at, value]) => setting(at, () => value));
  // In a field of another type a text is one more wrong type; in one of text it has to be looked at.
  const texts = names.filter((field) => properties[field]?.type === 'string');
  return fc.oneof(
    { weight: 8, arbitrary: unknown },
    { weight: 16, arbitrary: set(hostileValues) },
    ...(texts.length === 0 ? [] : [{ weight: 8, arbitrary: set(hostileTexts, texts) }]),
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
