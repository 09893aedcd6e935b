import { inputSchema, type Operation, outputSchema } from '../../kernel/operation.ts';
import type { Json } from './openapi-components.ts';
import { pathParameters } from './router-path.ts';

/** The schemas of one operation, as its routes use them. `definitions` are for `components.schemas`. */
export interface OperationSchemas {
  readonly path: readonly Parameter[];
  /** Query parameters of GET and DELETE. */
  readonly query: readonly Parameter[];
  /** Body of POST and PATCH. */
  readonly body: Json | null;
  readonly output: Json;
  readonly definitions: Json;
}

export interface Parameter {
  readonly name: string;
  readonly in: 'path' | 'query';
  readonly required: boolean;
  readonly description?: string;
  readonly schema: Json;
  readonly example?: unknown;
}

/** Takes an operation's schemas apart for OpenAPI. Throws where its path and its input do not fit each other. */
export function operationSchemas(operation: Operation): OperationSchemas {
  const input = embed(inputSchema(operation), `${operation.name}.input`);
  const output = embed(outputSchema(operation), `${operation.name}.output`);
  const properties = (input.schema['properties'] ?? {}) as Readonly<Record<string, Json>>;
  const required = (input.schema['required'] ?? []) as readonly string[];
  const inPath = pathParameters(operation.route.path);

  const parameter = (name: string, place: 'path' | 'query'): Parameter => {
    const { description, ...schema } = properties[name] ?? {};
    return {
      name,
      in: place,
      required: place === 'path' || required.includes(name),
      ...(typeof description === 'string' ? { description } : {}),
      schema,
      ...(name in operation.example ? { example: operation.example[name] } : {}),
    };
  };
  for (const name of inPath) {
    if (!(name in properties)) throw new Error(`${operation.name}: its input lacks {${name}} of its path`);
  }
  const others = Object.keys(properties).filter((name) => !inPath.includes(name));
  const hasBody = operation.route.method === 'POST' || operation.route.method === 'PATCH';
  return {
    path: inPath.map((name) => parameter(name, 'path')),
    query: hasBody ? [] : others.map((name) => parameter(name, 'query')),
    body: hasBody ? without(input.schema, inPath) : null,
    output: output.schema,
    definitions: { ...input.definitions, ...output.definitions },
  };
}

function without(schema: Json, names: readonly string[]): Json {
  if (names.length === 0) return schema;
  const keep = <T>([name]: readonly [string, T]) => !names.includes(name);
  const required = ((schema['required'] ?? []) as readonly string[]).filter((name) => !names.includes(name));
  const { required: _required, ...rest } = schema;
  return {
    ...rest,
    properties: Object.fromEntries(Object.entries((schema['properties'] ?? {}) as Json).filter(keep)),
    ...(required.length > 0 ? { required } : {}),
  };
}

/** A schema that stood alone, as a part of a larger document: what it defines moves out, its references follow. */
function embed(alone: Json, name: string): { schema: Json; definitions: Json } {
  const { $schema: _dialect, $defs: definitions = {}, ...schema } = alone;
  const moved = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(moved);
    if (typeof value !== 'object' || value === null) return value;
    return Object.fromEntries(
      Object.entries(value).map(([key, member]) => [
        key,
        key === '$ref' && typeof member === 'string' ? movedReference(member, name) : moved(member),
      ]),
    );
  };
  return {
    schema: moved(schema) as Json,
    definitions: Object.fromEntries(
      Object.entries(definitions as Json).map(([key, value]) => [`${name}.${key}`, moved(value)]),
    ),
  };
}

function movedReference(reference: string, name: string): string {
  const prefix = '#/$defs/';
  if (!reference.startsWith(prefix)) throw new Error(`${name}: the reference ${reference} cannot be moved`);
  return `#/components/schemas/${name}.${reference.slice(prefix.length)}`;
}
