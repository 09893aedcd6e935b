// How a service signs a call: HMAC-SHA-256 over everything that makes the call what it is, the body byte by byte. Whoever
// calls and whoever verifies build the same text from the same parts, so that only one place knows the form.
import { createHmac, hash, randomBytes, timingSafeEqual } from 'node:crypto';

const VERSION = 'v1';
const SIGNATURE = /^[0-9a-f]{64}$/i;
const NONCE_BYTES = 18;
const SECOND_MS = 1_000;

/** What a signature covers. */
export interface SignedCall {
  /** Unix seconds, as the header spells them. */
  readonly timestamp: string;
  readonly nonce: string;
  /** The owner the call is made for; empty where the header is absent. */
  readonly tenant: string;
  readonly method: string;
  /** Path and query exactly as they are sent. */
  readonly target: string;
  /** The body as it travels; empty where there is none. */
  readonly body: string | Uint8Array;
}

/** The text that is signed: seven lines, none of which can hold a line break. */
export function stringToSign(call: SignedCall): string {
  const { timestamp, nonce, tenant, method, target, body } = call;
  return [VERSION, timestamp, nonce, tenant, method, target, hash('sha256', body, 'hex')].join('\n');
}

/** The signature of the call: 64 lower-case hexadecimal digits. */
export function signCall(call: SignedCall, secret: Uint8Array): string {
  return createHmac('sha256', secret).update(stringToSign(call)).digest('hex');
}

/** Whether the signature, in hexadecimal digits of either case, is the call's. Takes the same time wherever it differs. */
export function isSignatureOf(call: SignedCall, secret: Uint8Array, signature: string): boolean {
  if (!SIGNATURE.test(signature)) return false;
  const expected = createHmac('sha256', secret).update(stringToSign(call)).digest();
  return timingSafeEqual(expected, Buffer.from(signature, 'hex'));
}

/** A call that is to be signed now, by whom and with what. */
export interface CallToSign {
  readonly keyId: string;
  readonly secret: Uint8Array;
  readonly method: string;
  readonly target: string;
  readonly body?: string | Uint8Array;
  readonly tenant?: string;
}

/** The headers of a signed call: made at that moment (Unix milliseconds), with a nonce of 24 characters that nobody had before. */
export function signedHeaders({ keyId, secret, tenant, body = '', ...rest }: CallToSign, nowMs: number) {
  const timestamp = String(Math.floor(nowMs / SECOND_MS));
  const nonce = randomBytes(NONCE_BYTES).toString('base64url');
  return {
    'x-iora-key-id': keyId,
    'x-iora-timestamp': timestamp,
    'x-iora-nonce': nonce,
    ...(tenant === undefined ? {} : { 'x-iora-tenant': tenant }),
    'x-iora-signature': signCall({ timestamp, nonce, tenant: tenant ?? '', body, ...rest }, secret),
  };
}
