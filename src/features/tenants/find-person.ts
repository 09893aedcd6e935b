import { sql } from 'kysely';
import { AppError } from '../../kernel/errors.ts';
import { blindIndex, EnvelopeError, type EnvelopeKey, open } from '../../lib/envelope.ts';
import type { Transaction } from '../../platform/postgres.ts';
import { type Person, type SignedIn, toPerson } from './people.ts';
import { ORG_ID, USER_ID } from './tenant-ids.ts';

/** People found among those who have signed in, by id or email; nobody is made known here. */

export type DataKeys = readonly [EnvelopeKey, ...EnvelopeKey[]];

/**
 * The person, with the membership where an organization (id or slug) is named. Throws `not_found` for a person who never signed in
 * or is no member there, and `invalid_input` for an email that more than one person has.
 */
export async function findPerson(
  tx: Transaction,
  dataKeys: DataKeys,
  { person, org }: { readonly person: string; readonly org?: string | undefined },
): Promise<Person> {
  const isId = USER_ID.test(person);
  // Each email is indexed under the data key that was the first when it was stored.
  const indexes = isId ? [] : dataKeys.map((key) => blindIndex(person.trim().toLowerCase(), key));
  const isOrgId = org !== undefined && ORG_ID.test(org);
  const { rows } = await sql<SignedIn>`select * from find_person(${isId ? person : null}, ${indexes},
    ${isOrgId ? org : null}, ${org === undefined || isOrgId ? null : org})`.execute(tx);
  const [row, ...others] = rows;
  if (row === undefined) {
    throw new AppError('not_found', `Nobody here is ${person}: the person must have signed in once.`);
  }
  if (others.length > 0) {
    const ids = rows.map(({ user_id }) => user_id).join(', ');
    throw new AppError('invalid_input', `More than one person has this email: name one by its id, ${ids}.`);
  }
  if (org !== undefined && row.org_id === null) {
    throw new AppError('not_found', `${person} is no member of an organization ${org}.`);
  }
  return toPerson(row);
}

/** The email of that person in the clear; null where there is none, or none that the configured keys can read. */
export function readEmail(ciphertext: Uint8Array | null, userId: string, dataKeys: DataKeys): string | null {
  if (ciphertext === null) return null;
  try {
    return open(ciphertext, dataKeys, { table: 'users', column: 'email', row: userId });
  } catch (error) {
    if (error instanceof EnvelopeError) return null;
    throw error;
  }
}
