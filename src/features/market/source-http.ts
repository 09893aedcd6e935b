import { z } from 'zod';
import { readBounded } from '../../lib/bounded-body.ts';
import { SourceError, type SourceOptions } from './price-source.ts';

// How sources are asked over HTTP, and the forms their numbers and times come in.

/** The answers we ask for are below 10 kB; whatever is longer is not one of them. */
export const BODY_BYTES_MAX = 262_144;

/** Coinbase refuses calls without a name; the others may use it to tell us apart. */
const USER_AGENT = 'iora';

interface SourceRequest<Schema extends z.ZodType> {
  /** Name of the source, for its errors. */
  readonly source: string;
  readonly url: string;
  readonly query?: Readonly<Record<string, string>>;
  readonly headers?: Readonly<Record<string, string>> | undefined;
  readonly schema: Schema;
  /** Status by which this source says that it does not list the asset or pair. */
  readonly notListedStatus?: number;
}

/**
 * GETs JSON and checks it. Numbers reach the schema as the text that was sent, so that no digit is lost. Throws SourceError:
 * timeout (the signal), unreachable, status, not_listed, too_large, schema. Redirects are refused: they would carry keys along.
 */
export async function getJson<Schema extends z.ZodType>(
  options: SourceOptions,
  request: SourceRequest<Schema>,
  signal: AbortSignal,
): Promise<z.output<Schema>> {
  const text = await getText(options.fetch ?? fetch, request, signal);
  try {
    return request.schema.parse(JSON.parse(text, numbersAsSent));
  } catch (error) {
    throw new SourceError(request.source, 'schema', 'the answer does not have the documented form', error);
  }
}

async function getText(doFetch: typeof fetch, request: SourceRequest<z.ZodType>, signal: AbortSignal): Promise<string> {
  const { source, query, headers, notListedStatus } = request;
  const url = query === undefined ? request.url : `${request.url}?${new URLSearchParams(query)}`;
  try {
    const response = await doFetch(url, {
      headers: { accept: 'application/json', 'user-agent': USER_AGENT, ...headers },
      redirect: 'error',
      signal,
    });
    if (response.ok) {
      const text = await readBounded(response.body, BODY_BYTES_MAX);
      if (text === null) throw new SourceError(source, 'too_large', `more than ${BODY_BYTES_MAX} bytes`);
      return text;
    }
    await response.body?.cancel();
    if (response.status === notListedStatus) throw new SourceError(source, 'not_listed');
    throw new SourceError(source, 'status', `status ${response.status}`);
  } catch (error) {
    if (error instanceof SourceError) throw error;
    if (signal.aborted) throw new SourceError(source, 'timeout');
    throw new SourceError(source, 'unreachable', undefined, error);
  }
}

function numbersAsSent(_key: string, value: unknown, context?: { readonly source?: string }): unknown {
  return typeof value === 'number' ? (context?.source ?? String(value)) : value;
}

/** Longest number read as a price; real ones have below 30 characters. */
const NUMBER_LENGTH_MAX = 60;

/** A number as text, exactly as sent. Whether it can be a price is decided by the consensus, which also writes exponents out. */
export const price = z
  .string()
  .max(NUMBER_LENGTH_MAX)
  .regex(/^\d+(?:\.\d+)?(?:[eE][+-]?\d{1,2})?$/);

/** A time in ISO 8601. */
export const isoTime = z.iso.datetime({ offset: true }).transform((text) => new Date(text));

/** A time in whole Unix seconds. */
export const unixTime = z
  .string()
  .regex(/^\d{1,11}$/)
  .transform((text) => new Date(Number(text) * 1_000));
