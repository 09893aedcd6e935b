// How an API key is stored: a keyed hash, so that the table finds a key by its hash in one index lookup and is
// worthless without the pepper. A key has 256 random bits, so nothing is gained by a slow, salted password hash.
import { createHmac } from 'node:crypto';

/** A secret outside the database. Two may be active while keys move from an old version to a new one. */
export type Pepper = { version: number; secret: Uint8Array };

/** Returns HMAC-SHA-256(pepper, key): 32 bytes, the same for the same key and pepper. */
export function hashKey(key: string, pepper: Uint8Array): Buffer {
  return createHmac('sha256', pepper).update(key).digest();
}
