// What every answer has to be, whatever was asked and over whichever transport it came.
import assert from 'node:assert/strict';
import type { TransportName } from '../../src/kernel/context.ts';
import { type ErrorCode, errorTable, type Problem } from '../../src/kernel/errors.ts';
import type { Operation } from '../../src/kernel/operation.ts';
import type { Fields } from './operation-arbitraries.ts';
import type { Caller } from './property-world.ts';

/** `usage`: the command line itself was wrong. `protocol`: JSON-RPC refused the message before there was a call. */
export type AnswerCode = 'ok' | 'usage' | 'protocol' | ErrorCode;

export interface Answer {
  readonly transport: TransportName;
  readonly requestId: string;
  readonly code: AnswerCode;
  /** Of a success. */
  readonly output?: unknown;
  /** Of a refusal that has one. */
  readonly problem?: Problem;
  /** All that was answered. */
  readonly text: string;
}

/** How a case is sent: everything about it that is neither its input nor its caller. */
export interface Style {
  /** Number of the variant that is sent instead of a proper message, or null for a proper one. */
  readonly raw: number | null;
  /** Revision of MCP, by its number in the list of those spoken. */
  readonly revision: number;
  /** Command line: `--flag value` instead of `--flag=value`, and lists by commas. */
  readonly spaced: boolean;
  /** Command line: with `--json`. */
  readonly json: boolean;
}

export interface Sending {
  /** What `invoke` has to be given, unless the message is refused before; undefined where that is not foreseen. */
  readonly expected: Fields | undefined;
  send(): Promise<Answer>;
}

/** A way to call operations from outside. Throws, when sending, for an answer that nothing may be answered with. */
export interface Carrier {
  readonly transport: TransportName;
  /** The message for an input; a string says why this transport has none for it. */
  carry(operation: Operation, input: unknown, caller: Caller, style: Style): Sending | string;
}

/** Codes by which a message is refused before its input is looked at as a whole. */
export const unreadableCodes: readonly AnswerCode[] = [
  'malformed_request',
  'payload_too_large',
  'uri_too_long',
  'unsupported_media_type',
];

export function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A value as it stands where only text can stand, such as a query or a command line. */
export function asText(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value);
}

/** Asserts that an output is one the operation declares, with no field beyond. */
export function assertOutput(operation: Operation, output: unknown): void {
  const parsed = operation.output.safeParse(output);
  assert.ok(parsed.success, `the output does not fit: ${parsed.error?.message}`);
  assert.deepEqual(output, parsed.data, 'the output has fields that the schema has not');
}

/** Asserts that it is a problem of the error table, none of ours and none of a server's. */
export function assertProblem(value: unknown, requestId: string): Problem {
  assert.ok(isFields(value), 'a refusal is a problem document');
  const code = assertCode(value['code']);
  const { status, title, retryable } = errorTable[code];
  assert.deepEqual(
    { status: value['status'], title: value['title'], retryable: value['retryable'], requestId: value['requestId'] },
    { status, title, retryable, requestId },
  );
  assert.ok(typeof value['detail'] === 'string' && value['detail'] !== '', 'a refusal says what is wrong');
  assert.equal(value['type'], `/docs/errors#${code}`);
  return value as unknown as Problem;
}

/** Asserts that it is a code of the error table, and of a refusal: not of a failure of ours or of a server. */
export function assertCode(code: unknown): ErrorCode {
  assert.ok(typeof code === 'string' && Object.hasOwn(errorTable, code), `unknown code ${String(code)}`);
  assert.ok(errorTable[code as ErrorCode].status < 500, `answered ${code}`);
  return code as ErrorCode;
}
