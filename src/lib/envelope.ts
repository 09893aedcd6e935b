// Personal columns (email, names) at rest: AES-256-GCM, bound to the table, column and row that hold them, so that a
// value copied to another row does not open. A sealed value names the version of its key, so keys can be replaced one
// by one: layout version (1 byte) | key version (4 bytes) | nonce (12) | ciphertext | tag (16).
import { createCipheriv, createDecipheriv, createHmac, hkdfSync, randomBytes } from 'node:crypto';

/** A secret of 32 random bytes and its version, a whole number from 0 to 2^32-1. */
export type EnvelopeKey = { version: number; secret: Uint8Array };

/** Where a sealed value lives. The row is whatever identifies it and never changes, such as its id. */
export type SealContext = { table: string; column: string; row: string };

export class EnvelopeError extends Error {
  readonly reason: 'malformed' | 'unknown_key' | 'not_authentic';

  constructor(reason: EnvelopeError['reason'], message: string) {
    super(message);
    this.name = 'EnvelopeError';
    this.reason = reason;
  }
}

const LAYOUT = 1;
const SECRET_BYTES = 32;
const HEADER_BYTES = 5;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;

/** Returns the sealed value, never twice the same. One key serves 2^32 random nonces (NIST SP 800-38D, section 8.3). */
export function seal(plaintext: string, key: EnvelopeKey, context: SealContext): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt8(LAYOUT, 0);
  header.writeUInt32BE(key.version, 1);
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv('aes-256-gcm', subkeys(key.secret).sealing, nonce, { authTagLength: TAG_BYTES });
  cipher.setAAD(boundTo(header, context));
  const ciphertext = Buffer.concat([cipher.update(plaintext, 'utf8'), cipher.final()]);
  return Buffer.concat([header, nonce, ciphertext, cipher.getAuthTag()]);
}

/**
 * Returns the text. Throws EnvelopeError, which holds nothing of the content, when the value was not sealed here with
 * one of `keys`.
 */
export function open(sealed: Uint8Array, keys: readonly EnvelopeKey[], context: SealContext): string {
  const bytes = Buffer.from(sealed.buffer, sealed.byteOffset, sealed.byteLength);
  if (bytes.length < HEADER_BYTES + NONCE_BYTES + TAG_BYTES || bytes[0] !== LAYOUT) {
    throw new EnvelopeError('malformed', 'This is no sealed value of a layout known here.');
  }
  const version = bytes.readUInt32BE(1);
  const key = keys.find((candidate) => candidate.version === version);
  if (key === undefined)
    throw new EnvelopeError('unknown_key', `The value is sealed with data key ${version}, which is not configured.`);
  const header = bytes.subarray(0, HEADER_BYTES);
  const nonce = bytes.subarray(HEADER_BYTES, HEADER_BYTES + NONCE_BYTES);
  const decipher = createDecipheriv('aes-256-gcm', subkeys(key.secret).sealing, nonce, { authTagLength: TAG_BYTES });
  decipher.setAAD(boundTo(header, context));
  decipher.setAuthTag(bytes.subarray(-TAG_BYTES));
  const text = decipher.update(bytes.subarray(HEADER_BYTES + NONCE_BYTES, -TAG_BYTES), undefined, 'utf8');
  try {
    return text + decipher.final('utf8');
  } catch {
    throw new EnvelopeError(
      'not_authentic',
      `The value in ${context.table}.${context.column} was altered or belongs elsewhere.`,
    );
  }
}

/**
 * Returns 32 bytes that are the same for the same value and key, to find or keep unique what is stored sealed. The
 * caller brings the value into one form first (case, white space).
 */
export function blindIndex(value: string, key: EnvelopeKey): Buffer {
  return createHmac('sha256', subkeys(key.secret).indexing).update(value).digest();
}

/** Each part with its length in front: no two contexts read the same. */
function boundTo(header: Buffer, { table, column, row }: SealContext): Buffer {
  const parts = [table, column, row].flatMap((part) => {
    const bytes = Buffer.from(part);
    const length = Buffer.alloc(4);
    length.writeUInt32BE(bytes.length);
    return [length, bytes];
  });
  return Buffer.concat([header, ...parts]);
}

type Subkeys = { sealing: Buffer; indexing: Buffer };

// Derived once per secret; an entry lives no longer than the secret it belongs to.
const derived = new WeakMap<Uint8Array, Subkeys>();

function subkeys(secret: Uint8Array): Subkeys {
  let keys = derived.get(secret);
  if (keys === undefined) {
    if (secret.length !== SECRET_BYTES) throw new RangeError(`a data key has ${SECRET_BYTES} bytes`);
    keys = { sealing: subkey(secret, 'iora seal v1'), indexing: subkey(secret, 'iora blind index v1') };
    derived.set(secret, keys);
  }
  return keys;
}

function subkey(secret: Uint8Array, purpose: string): Buffer {
  return Buffer.from(hkdfSync('sha256', secret, '', purpose, 32));
}
