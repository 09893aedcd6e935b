// Whoever is given the same input has to answer the same, whichever transport it came by.
import { isDeepStrictEqual } from 'node:util';
import type { Operation } from '../../src/kernel/operation.ts';
import type { Fields } from './operation-arbitraries.ts';
import { type Answer, asText, isFields, type Sending, unreadableCodes } from './property-answers.ts';
import type { Caller } from './property-world.ts';

/** A message and what came back. */
export interface Sent {
  readonly sending: Sending;
  readonly answer: Answer;
}

/** Whether the caller is let through to `run` by all that does not depend on its input. */
export function isCapable(operation: Operation, { principal, exhausted }: Caller): boolean {
  if (principal === null || (exhausted && operation.cost > 0)) return false;
  if (operation.callers !== undefined && !operation.callers.includes(principal.kind)) return false;
  return operation.permission === null || principal.permissions.has(operation.permission);
}

/** Pairs of messages that carried the same input. */
export function comparable(operation: Operation, sent: readonly Sent[]): (readonly [Sent, Sent])[] {
  return sent.flatMap((one, index) =>
    sent
      .slice(index + 1)
      .filter((other) => sameInput(operation, one.sending.expected, other.sending.expected))
      .map((other) => [one, other] as const),
  );
}

/** What two of the messages disagree about, or null. */
export function findDifference(operation: Operation, caller: Caller, sent: readonly Sent[]): string | null {
  const codes = sent.map(({ answer }) => answer.code);
  // What a command line has no flag for, no input has a field for.
  if (codes.includes('usage') && codes.includes('ok')) return `wrong use of the command, yet ${codes.join(', ')}`;
  for (const [one, other] of comparable(operation, sent)) {
    const difference = differenceOf(operation, caller, one.answer, other.answer);
    if (difference !== null) return difference;
  }
  return null;
}

/** A query holds numbers as text where a command line holds numbers. */
function sameInput({ route }: Operation, one: Fields | undefined, other: Fields | undefined): boolean {
  if (one === undefined || other === undefined) return false;
  if (route.method === 'POST' || route.method === 'PATCH') return isDeepStrictEqual(one, other);
  const inWords = (fields: Fields) =>
    Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, asText(value)]));
  return isDeepStrictEqual(inWords(one), inWords(other));
}

function differenceOf(operation: Operation, caller: Caller, one: Answer, other: Answer): string | null {
  const what = `${one.transport} answers ${one.code}, ${other.transport} ${other.code}`;
  const codes = [one.code, other.code];
  if (codes.some((code) => unreadableCodes.includes(code))) return codes.includes('ok') ? what : null;
  // A tool that the caller may not use does not exist for it, and an owner in a hurry is let through once a minute.
  if (codes.includes('protocol')) return isCapable(operation, { ...caller, exhausted: false }) ? what : null;
  if (caller.exhausted && codes.every((code) => code === 'ok' || code === 'rate_limited')) return null;
  if (one.code !== other.code) return what;
  const issues = [one, other].map(({ problem }) => JSON.stringify(problem?.['issues']));
  if (one.problem !== undefined && other.problem !== undefined && issues[0] !== issues[1])
    return `${what}: ${issues.join(', ')}`;
  if (one.output === undefined || other.output === undefined) return null;
  const outputs = [one, other].map(({ output }) => JSON.stringify(settled(operation, output)));
  return outputs[0] === outputs[1] ? null : `${what}, with different outputs: ${outputs.join(' and ')}`;
}

/** An output without the fields in which two calls may differ. */
function settled(operation: Operation, value: unknown): unknown {
  if (Array.isArray(value)) return value.map((item) => settled(operation, item));
  if (!isFields(value)) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([name]) => operation.volatile?.includes(name) !== true)
      .map(([name, item]) => [name, settled(operation, item)]),
  );
}
