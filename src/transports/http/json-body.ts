import { isUtf8 } from 'node:buffer';
import type { IncomingMessage } from 'node:http';
import { AppError } from '../../kernel/errors.ts';
import { BODY_BYTES_MAX, DRAIN_BYTES_MAX, JSON_DEPTH_MAX } from './http-limits.ts';

// Bodies are read here and not by Fastify, so that a caller is known before a byte of its body is looked at.

const NO_BODY = Buffer.alloc(0);

/**
 * Returns the whole body, at once where there is none. Throws `payload_too_large` beyond BODY_BYTES_MAX,
 * `malformed_request` when the connection ends first, and an AppError that the request emits as its `error`.
 */
export function readBody(request: IncomingMessage): Buffer | Promise<Buffer> {
  if (!hasBody(request)) return NO_BODY;
  if (Number(request.headers['content-length']) > DRAIN_BYTES_MAX) throw tooLarge();
  return new Promise((resolve, reject) => {
    if (request.destroyed) {
      reject(cutShort());
      return;
    }
    const chunks: Buffer[] = [];
    let bytes = 0;
    request.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes <= BODY_BYTES_MAX) chunks.push(chunk);
      else if (bytes > DRAIN_BYTES_MAX) {
        request.pause();
        reject(tooLarge());
      }
    });
    request.on('end', () => {
      if (bytes > BODY_BYTES_MAX) reject(tooLarge());
      else resolve(chunks.length === 1 && chunks[0] !== undefined ? chunks[0] : Buffer.concat(chunks));
    });
    // Node reports a connection that is gone; connection-errors.ts a request that cannot be read on.
    request.on('error', (error) => reject(error instanceof AppError ? error : cutShort()));
  });
}

/** Whether the request says that a body follows. */
export function hasBody({ headers }: IncomingMessage): boolean {
  const length = headers['content-length'];
  return length === undefined ? headers['transfer-encoding'] !== undefined : length !== '0';
}

function tooLarge(): AppError {
  return new AppError('payload_too_large', `A request body may have at most ${BODY_BYTES_MAX} bytes.`, {
    details: { maxBytes: BODY_BYTES_MAX },
  });
}

function cutShort(): AppError {
  return new AppError('malformed_request', 'The connection ended before the body had arrived.');
}

/** Throws `unsupported_media_type` unless a body under these headers is JSON in UTF-8, not compressed. */
export function assertJson({ headers }: IncomingMessage): void {
  const type = headers['content-type'];
  if (type !== 'application/json' && !isUtf8Json(type ?? '')) {
    throw new AppError(
      'unsupported_media_type',
      'Send the body as JSON with the header "Content-Type: application/json".',
    );
  }
  const encoding = headers['content-encoding'];
  if (encoding !== undefined && encoding !== 'identity') {
    throw new AppError('unsupported_media_type', 'Send the body without Content-Encoding.');
  }
}

function isUtf8Json(contentType: string): boolean {
  const [type, ...parameters] = contentType.toLowerCase().split(';');
  const charset = parameters.map((item) => item.trim()).find((item) => item.startsWith('charset='));
  return type?.trim() === 'application/json' && (charset === undefined || /^charset="?utf-?8"?$/.test(charset));
}

/**
 * The object in a body; an empty body is an empty object. Throws `malformed_request` for anything else than a JSON
 * object, for nesting beyond JSON_DEPTH_MAX and for names that reach into prototypes.
 */
export function parseObject(body: Buffer): Record<string, unknown> {
  if (body.length === 0) return {};
  const value = parseJson(body);
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new AppError('malformed_request', 'The body must be a JSON object.');
  }
  assertHarmless(value, 1);
  return value as Record<string, unknown>;
}

function parseJson(body: Buffer): unknown {
  // Decoding would quietly turn broken UTF-8 into other text than was sent.
  if (!isUtf8(body)) throw new AppError('malformed_request', 'The body is not valid UTF-8.');
  try {
    return JSON.parse(body.toString());
  } catch {
    throw new AppError('malformed_request', 'The body is not valid JSON.');
  }
}

/** Whether a name given to a property could reach an object's prototype somewhere down the line. */
export function isPrototypeName(name: string): boolean {
  return name === '__proto__' || name === 'constructor' || name === 'prototype';
}

function assertHarmless(value: object, depth: number): void {
  if (depth > JSON_DEPTH_MAX) {
    throw new AppError('malformed_request', `The body is nested deeper than ${JSON_DEPTH_MAX} levels.`);
  }
  for (const name of Object.keys(value)) {
    if (isPrototypeName(name)) throw new AppError('malformed_request', `The name ${name} is not allowed in a body.`);
    const member: unknown = (value as Record<string, unknown>)[name];
    if (typeof member === 'object' && member !== null) assertHarmless(member, depth + 1);
  }
}
