// The shape of an API key, so that a typing error or a leaked key is recognised without a database:
// iora_pk_(live|test)_ + 43 base62 characters (256 random bits) + 6 base62 characters (CRC-32 of everything before).
import { randomBytes } from 'node:crypto';
import { crc32 } from 'node:zlib';

export type KeyEnvironment = 'live' | 'test';

export type ParsedKey = {
  environment: KeyEnvironment;
  /** What may be stored and shown, such as `iora_pk_live_AbCd`: it names a key and opens nothing. */
  prefix: string;
};

const ALPHABET = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
const SECRET_BYTES = 32;
// 62^42 < 2^256 < 62^43 and 62^5 < 2^32 < 62^6: the fewest characters that hold every value.
const SECRET_CHARACTERS = 43;
const CHECKSUM_CHARACTERS = 6;
const SHOWN_SECRET_CHARACTERS = 4;

/**
 * The expression to give to a secret scanner. It has no word boundaries, because a key leaks in any surroundings
 * (after the `n` of an escaped line feed, for instance); `parseKey` tells a real key from a chance match.
 */
export const keyPattern = `iora_pk_(?:live|test)_[0-9A-Za-z]{${SECRET_CHARACTERS + CHECKSUM_CHARACTERS}}`;

const WHOLE_KEY = new RegExp(`^${keyPattern}$`);
const HEAD_LENGTH = 'iora_pk_live_'.length;
const KEY_LENGTH = HEAD_LENGTH + SECRET_CHARACTERS + CHECKSUM_CHARACTERS;

/** Returns a new key with 256 uniformly random bits. It exists nowhere else: show it once, store only its hash. */
export function generateKey(environment: KeyEnvironment): string {
  const secret = BigInt(`0x${randomBytes(SECRET_BYTES).toString('hex')}`);
  const body = `iora_pk_${environment}_${base62(secret, SECRET_CHARACTERS)}`;
  return body + checksum(body);
}

/**
 * Returns what a well-formed key says about itself, or null. Needs no lookup; whether the key exists is not its
 * question.
 */
export function parseKey(text: string): ParsedKey | null {
  if (text.length !== KEY_LENGTH || !WHOLE_KEY.test(text)) return null;
  const body = text.slice(0, -CHECKSUM_CHARACTERS);
  if (text.slice(-CHECKSUM_CHARACTERS) !== checksum(body)) return null;
  return {
    environment: text.startsWith('iora_pk_live_') ? 'live' : 'test',
    prefix: keyPrefix(text),
  };
}

/** Returns the part of a key that may be shown and stored, to tell keys apart by. */
export function keyPrefix(key: string): string {
  return key.slice(0, HEAD_LENGTH + SHOWN_SECRET_CHARACTERS);
}

function checksum(body: string): string {
  let rest = crc32(body);
  let text = '';
  for (let i = 0; i < CHECKSUM_CHARACTERS; i++) {
    text = ALPHABET.charAt(rest % 62) + text;
    rest = Math.floor(rest / 62);
  }
  return text;
}

function base62(value: bigint, characters: number): string {
  let rest = value;
  let text = '';
  for (let i = 0; i < characters; i++) {
    text = ALPHABET.charAt(Number(rest % 62n)) + text;
    rest /= 62n;
  }
  return text;
}
