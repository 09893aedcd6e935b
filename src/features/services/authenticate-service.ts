import type { Credentials, Principal } from '../../kernel/context.ts';
import { AppError } from '../../kernel/errors.ts';
import { isSignatureOf } from '../../lib/service-signature.ts';
import type { ServiceSecret } from '../../platform/config-values.ts';
import type { Database } from '../../platform/postgres.ts';
import type { PrincipalCache } from '../keys/index.ts';
import type { Nonces } from './nonces.ts';
import { loadForTenant, serviceItself } from './service-owners.ts';

export interface ServiceAuthenticatorParts {
  /** Any of them verifies, so that a new one can be brought in before the old one goes. */
  readonly secrets: readonly ServiceSecret[];
  readonly nonces: Nonces;
  readonly database: Database;
  /** Of the tenants that services call for. */
  readonly cache: PrincipalCache;
  readonly wallClockMs: () => number;
}

/** Seconds that the clock of a caller may differ from ours, either way. */
const CLOCK_SKEW_SECONDS_MAX = 300;
/**
 * A nonce is kept so much longer than its timestamp is accepted: a body may take 30 s to arrive after its headers were judged,
 * and the clocks of two instances, or of one and its database, may differ.
 */
const NONCE_MARGIN_SECONDS = 120;
const SECOND_MS = 1_000;

/**
 * Verifies a signed call, in this order: shape of the headers, key id, timestamp, signature over the raw body, nonce, tenant.
 * Throws AppError `unauthenticated`, the same whatever is wrong but the clock, which is told; `forbidden` for a tenant that
 * cannot be served; and what reading the body or claiming the nonce throws.
 */
export function createServiceAuthenticator(
  parts: ServiceAuthenticatorParts,
): (credentials: Credentials) => Promise<Principal> {
  const signers = new Map(parts.secrets.map((item) => [item.keyId, { ...item, itself: serviceItself(item.service) }]));

  return async function authenticateService({ headers, method, target, body }) {
    const signed = readHeaders(headers);
    if (signed === null) throw notAccepted();
    const signer = signers.get(signed.keyId);
    if (signer === undefined) throw notAccepted();
    const { keyId, timestamp, nonce, tenant, signature } = signed;
    assertInTime(Number(timestamp), parts.wallClockMs());
    const call = { timestamp, nonce, tenant, method, target, body: await body() };
    if (!isSignatureOf(call, signer.secret, signature)) throw notAccepted();
    const expiresAtMs = (Number(timestamp) + CLOCK_SKEW_SECONDS_MAX + NONCE_MARGIN_SECONDS) * SECOND_MS;
    if (!(await parts.nonces.claim(keyId, nonce, expiresAtMs))) throw notAccepted();
    return tenant === '' ? signer.itself : forTenant(parts, signer.service, tenant);
  };
}

/** The service on behalf of that tenant. Throws `forbidden` for one that cannot be served. */
async function forTenant(parts: ServiceAuthenticatorParts, service: string, tenant: string): Promise<Principal> {
  const credential = `${service} ${tenant}`;
  const known = parts.cache.get(credential);
  const principal =
    known === undefined
      ? await parts.cache.load(credential, () => loadForTenant(parts.database, service, tenant))
      : known;
  if (principal !== null) return principal;
  throw new AppError(
    'forbidden',
    `${TENANT_HEADER} names no owner that can be served: there is none of that id, or it is suspended or closed.`,
  );
}

/** Each header as it may look. A header that is sent twice arrives as a list or joined by a comma, and fits none of these. */
const shapes = {
  keyId: ['x-iora-key-id', /^[A-Za-z0-9_-]{1,64}$/],
  // Milliseconds fit too, so that whoever sends them is told.
  timestamp: ['x-iora-timestamp', /^\d{1,15}$/],
  nonce: ['x-iora-nonce', /^[A-Za-z0-9_-]{16,64}$/],
  signature: ['x-iora-signature', /^[0-9A-Fa-f]{64}$/],
} as const;
const TENANT_HEADER = 'x-iora-tenant';
const TENANT = /^[A-Za-z0-9_-]{1,100}$/;

type SignatureHeaders = Readonly<Record<keyof typeof shapes | 'tenant', string>>;

/** The headers of a signature; null where one is missing or does not look like one. `tenant` is empty where it is absent. */
function readHeaders(headers: Credentials['headers']): SignatureHeaders | null {
  const read = (name: string, shape: RegExp) => {
    const value = headers[name];
    return typeof value === 'string' && shape.test(value) ? value : undefined;
  };
  const keyId = read(...shapes.keyId);
  const timestamp = read(...shapes.timestamp);
  const nonce = read(...shapes.nonce);
  const signature = read(...shapes.signature);
  const tenant = headers[TENANT_HEADER] === undefined ? '' : read(TENANT_HEADER, TENANT);
  if (keyId === undefined || timestamp === undefined || nonce === undefined) return null;
  return signature === undefined || tenant === undefined ? null : { keyId, timestamp, nonce, signature, tenant };
}

/** Throws `unauthenticated`, saying how far the clock is off, where the moment (Unix seconds) lies too far from now. */
function assertInTime(timestamp: number, nowMs: number): void {
  const offSeconds = timestamp - nowMs / SECOND_MS;
  if (Math.abs(offSeconds) <= CLOCK_SKEW_SECONDS_MAX) return;
  const way = offSeconds < 0 ? 'behind' : 'ahead of';
  throw new AppError(
    'unauthenticated',
    `x-iora-timestamp is ${Math.ceil(Math.abs(offSeconds))} s off, ${way} this server's clock; ${CLOCK_SKEW_SECONDS_MAX} s are allowed. Send Unix seconds of a clock that is right, and sign again.`,
  );
}

/** The one refusal of every signed call, so that nobody learns which part of it was wrong. */
function notAccepted(): AppError {
  return new AppError(
    'unauthenticated',
    'The signed call is not accepted. Check the key id and what is signed, and use each nonce once.',
  );
}
