import { AppError } from '../../kernel/errors.ts';
import { isPrototypeName } from './json-body.ts';

type Fields = Readonly<Record<string, unknown>>;

/** Input of GET and DELETE: the query's parameters and the path's. Throws `invalid_input` for one given twice. */
export function inputFromQuery(query: Fields, path: Fields): Record<string, unknown> {
  const fields: Record<string, unknown> = {};
  for (const name of Object.keys(query)) {
    if (isPrototypeName(name)) throw invalid(name, 'is not a parameter');
    if (Array.isArray(query[name])) throw invalid(name, 'is given more than once');
    fields[name] = query[name];
  }
  return withPath(fields, path);
}

/** Input of POST and PATCH: the body's fields and the path's parameters. Throws `invalid_input` for a query. */
export function inputFromBody(body: Record<string, unknown>, query: Fields, path: Fields): Record<string, unknown> {
  for (const name of Object.keys(query)) throw invalid(name, 'belongs into the JSON body; this route takes no query');
  return withPath(body, path);
}

/** What the path says stands; saying it again elsewhere could only contradict it. */
function withPath(fields: Record<string, unknown>, path: Fields): Record<string, unknown> {
  for (const name of Object.keys(path)) {
    if (Object.hasOwn(fields, name)) throw invalid(name, 'is given by the path already');
    fields[name] = path[name];
  }
  return fields;
}

/** As much of a parameter's name as a refusal repeats. */
const NAME_LENGTH_MAX = 64;

function invalid(name: string, message: string): AppError {
  const path = name.slice(0, NAME_LENGTH_MAX);
  return new AppError('invalid_input', `${path} ${message}.`, { details: { issues: [{ path, message }] } });
}
