import { escapeHtml, prose } from './docs-layout.ts';
import type { OpenApiDocument } from './openapi.ts';
import type { Json } from './openapi-components.ts';

// JSON Schema as a table that can be read: a row for every field, nested ones as `sources[].name`.

/** Levels of nesting shown; a schema that contains itself has no end. */
const DEPTH_MAX = 5;

interface Field {
  readonly name: string;
  readonly required: boolean;
  readonly schema: Json;
}

/** The fields of an object schema as an HTML table, empty where it has none. */
export function fieldTable(document: OpenApiDocument, schema: Json): string {
  return table(document, fieldsOf(document, schema, '', 1));
}

/** Parameters as such a table. */
export function table(document: OpenApiDocument, fields: readonly Field[]): string {
  if (fields.length === 0) return '';
  const rows = fields.map(({ name, required, schema }) => {
    const { description } = schema;
    const words = [
      `<code>${escapeHtml(typeWords(document, schema))}</code>`,
      ...(required ? [] : ['optional']),
      ...('default' in schema ? [`default <code>${escapeHtml(JSON.stringify(schema['default']))}</code>`] : []),
    ];
    const meaning = typeof description === 'string' ? prose(description) : '';
    return `<tr><td><code>${escapeHtml(name)}</code></td><td>${words.join(', ')}</td><td>${meaning}</td></tr>`;
  });
  return `<table><thead><tr><th>Name</th><th>Type</th><th>Meaning</th></tr></thead><tbody>${rows.join('\n')}</tbody></table>`;
}

function fieldsOf(document: OpenApiDocument, schema: Json, prefix: string, depth: number): Field[] {
  if (depth > DEPTH_MAX) return [];
  const { properties = {}, required = [] } = resolved(document, schema) as {
    properties?: Readonly<Record<string, Json>>;
    required?: readonly string[];
  };
  return Object.entries(properties).flatMap(([key, member]) => {
    const name = prefix + key;
    const field: Field = { name, required: required.includes(key), schema: resolved(document, member) };
    return [field, ...nested(document, field.schema, name, depth + 1)];
  });
}

function nested(document: OpenApiDocument, schema: Json, name: string, depth: number): Field[] {
  const { items, anyOf } = schema as { items?: Json; anyOf?: readonly Json[] };
  if (items !== undefined) return nested(document, resolved(document, items), `${name}[]`, depth);
  if (anyOf !== undefined) return anyOf.flatMap((choice) => nested(document, resolved(document, choice), name, depth));
  return fieldsOf(document, schema, `${name}.`, depth);
}

/** Patterns longer than this tell a reader nothing. */
const PATTERN_LENGTH_MAX = 40;

function typeWords(document: OpenApiDocument, unresolved: Json): string {
  const schema = resolved(document, unresolved);
  const { type, format, items, anyOf, pattern } = schema as {
    type?: string | readonly string[];
    format?: string;
    items?: Json;
    anyOf?: readonly Json[];
    pattern?: string;
  };
  if (Array.isArray(schema['enum'])) return schema['enum'].map((value) => JSON.stringify(value)).join(' | ');
  if ('const' in schema) return JSON.stringify(schema['const']);
  if (anyOf !== undefined) return anyOf.map((choice) => typeWords(document, choice)).join(' | ');
  if (type === 'array') {
    const each = items === undefined ? 'any' : typeWords(document, items);
    return each.includes(' ') ? `(${each})[]` : `${each}[]`;
  }
  if (format !== undefined) return format;
  if (pattern !== undefined && pattern.length <= PATTERN_LENGTH_MAX) return `string ${pattern}`;
  return `${[type ?? 'any'].flat().join(' | ')}${range(schema)}`;
}

function range(schema: Json): string {
  const { minimum, maximum, minLength, maxLength } = schema as Record<string, number | undefined>;
  const [from, to] = [minimum ?? minLength, maximum ?? maxLength].map((bound) =>
    bound === undefined || !Number.isSafeInteger(bound) || Math.abs(bound) === Number.MAX_SAFE_INTEGER
      ? ''
      : String(bound),
  );
  if (from === '' && to === '') return '';
  const bounds = to === '' ? `≥ ${from}` : from === '' ? `≤ ${to}` : `${from}..${to}`;
  return ` ${bounds}${minLength !== undefined || maxLength !== undefined ? ' characters' : ''}`;
}

/** The schema itself, or the one its `$ref` names. */
export function resolved(document: OpenApiDocument, value: Json): Json {
  const reference = value['$ref'];
  if (typeof reference !== 'string') return value;
  let target: unknown = document;
  for (const step of reference.slice('#/'.length).split('/')) target = (target as Json)[step];
  return resolved(document, target as Json);
}
