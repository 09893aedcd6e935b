import { isIP } from 'node:net';
import type { FastifyRequest } from 'fastify';
import type { Authenticate, Call, Principal } from '../../kernel/context.ts';
import { USER_AGENT_LENGTH_MAX } from './http-limits.ts';
import type { HttpParts } from './http-parts.ts';
import { readBody } from './json-body.ts';

/**
 * The principal behind whatever credential the request carries, at once where it is cached. Throws whatever
 * `authenticate` throws.
 */
export function authenticateRequest(
  authenticate: Authenticate,
  request: FastifyRequest,
): Principal | Promise<Principal> {
  const { raw } = request;
  return authenticate({
    headers: raw.headers,
    method: raw.method ?? '',
    target: raw.url ?? '',
    ipAddress: callerAddress(request),
    body: () => bodyOf(request),
  });
}

/** Longest time that a caller is believed while its body arrives; what is heard meanwhile ends it sooner. */
const BELIEVED_MS = 1_000;

/** Who calls, as of a moment. */
interface Caller {
  readonly principal: Principal;
  readonly atMs: number;
  /** What had been heard of changed rights by then. */
  readonly heard: number;
}

type CallerParts = Pick<HttpParts, 'authenticate' | 'rightsHeard'>;

/** As `authenticateRequest`, with what is needed to tell later whether the answer still holds. */
export function identifyCaller(parts: CallerParts, request: FastifyRequest): Caller | Promise<Caller> {
  // Before the look-up: what is heard while it is under way may be about this caller.
  const heard = parts.rightsHeard();
  const atMs = request.startedAtMs;
  const vouched = authenticateRequest(parts.authenticate, request);
  return vouched instanceof Promise
    ? vouched.then((principal) => ({ principal, atMs, heard }))
    : { principal: vouched, atMs, heard };
}

/**
 * The principal once the body has arrived, which may take as long as a request may: whoever was revoked meanwhile is refused
 * like at the start. A service is not asked again, for its signature was verified over the body itself.
 */
export function confirmCaller(
  parts: CallerParts,
  request: FastifyRequest,
  { principal, atMs, heard }: Caller,
): Principal | Promise<Principal> {
  if (principal.kind === 'service') return principal;
  if (heard === parts.rightsHeard() && performance.now() - atMs < BELIEVED_MS) return principal;
  return authenticateRequest(parts.authenticate, request);
}

/** The raw body, read once however often it is asked for: a signature is verified over it before its fields are read. */
export function bodyOf(request: FastifyRequest): Buffer | Promise<Buffer> {
  request.rawBody ??= readBody(request.raw);
  return request.rawBody;
}

declare module 'fastify' {
  interface FastifyRequest {
    /** What `callerAddress` has found; undefined before. */
    knownAddress: string | null | undefined;
    /** What `bodyOf` has read or is reading; null before. */
    rawBody: Buffer | Promise<Buffer> | null;
  }
}
/** What `invoke` is told about an authenticated request. */
export function callOf(request: FastifyRequest, principal: Principal, transport: Call['transport']): Call {
  return {
    principal,
    requestId: request.id,
    transport,
    ipAddress: callerAddress(request),
    userAgent: request.raw.headers['user-agent']?.slice(0, USER_AGENT_LENGTH_MAX) ?? null,
    signal: null,
  };
}

/**
 * The caller's address: the peer's, or what a trusted proxy says. Null once the connection is gone. A proxy that
 * forwards something else than an address is believed no further than itself.
 */
export function callerAddress(request: FastifyRequest): string | null {
  // Asked for by whoever vouches for the caller and by the audit trail; behind proxies it takes some microseconds.
  request.knownAddress ??= findAddress(request);
  return request.knownAddress;
}

function findAddress(request: FastifyRequest): string | null {
  const peer = request.raw.socket.remoteAddress;
  const { ip } = request;
  const address = ip === peer || isIP(ip) === 0 ? peer : ip;
  return address === undefined ? null : withoutMapping(address);
}

/** An IPv4 caller of a socket that speaks both shows up as `::ffff:192.0.2.1`. */
export function withoutMapping(address: string): string {
  return address.startsWith('::ffff:') && address.includes('.') ? address.slice('::ffff:'.length) : address;
}
