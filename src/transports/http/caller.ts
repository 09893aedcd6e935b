import { isIP } from 'node:net';
import type { FastifyRequest } from 'fastify';
import type { Authenticate, Call, Principal } from '../../kernel/context.ts';
import { AppError } from '../../kernel/errors.ts';
import { AUTHORIZATION_LENGTH_MAX, USER_AGENT_LENGTH_MAX } from './http-limits.ts';

/**
 * The principal behind `Authorization: Bearer ...`, at once where it is cached. Throws `unauthenticated` for any other
 * form of the header, and whatever `authenticate` throws.
 */
export function authenticateRequest(
  authenticate: Authenticate,
  request: FastifyRequest,
): Principal | Promise<Principal> {
  const { authorization } = request.raw.headers;
  if (authorization === undefined || authorization.length > AUTHORIZATION_LENGTH_MAX || !bearer.test(authorization)) {
    throw new AppError('unauthenticated', 'Send a valid credential: Authorization: Bearer <API key or session token>.');
  }
  return authenticate({ authorization });
}

const bearer = /^bearer [!-~]/i;

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
  const peer = request.raw.socket.remoteAddress;
  const { ip } = request;
  const address = ip === peer || isIP(ip) === 0 ? peer : ip;
  return address === undefined ? null : withoutMapping(address);
}

/** An IPv4 caller of a socket that speaks both shows up as `::ffff:192.0.2.1`. */
export function withoutMapping(address: string): string {
  return address.startsWith('::ffff:') && address.includes('.') ? address.slice('::ffff:'.length) : address;
}
