// Names in an input for what lies in the database, which is known only when the input is sent: the same seed makes the same
// references, whatever ids the keys have this time.
import fc from 'fast-check';

/** What a caller may name that lies in the database: keys of its owner, of a colleague, of another tenant; people; cursors. */
export type ReferenceKind =
  | 'liveKey'
  | 'revokedKey'
  | 'expiredKey'
  | 'colleagueKey'
  | 'foreignKey'
  | 'person'
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

/** References of one of the kinds, spelled in one of the ways. */
export function reference(kinds: readonly ReferenceKind[], spellings: readonly Reference['spelling'][]) {
  return fc
    .record({ kind: fc.constantFrom(...kinds), index: fc.nat(999), spelling: fc.constantFrom(...spellings) })
    .map((made): Reference => ({ [referenceMark]: true, ...made }));
}
