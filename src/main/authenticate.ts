import { unauthenticated } from '../features/keys/index.ts';
import type { Authenticate, Credentials, Principal } from '../kernel/context.ts';
import { AppError } from '../kernel/errors.ts';

/** Who can vouch for which kind of credential. */
export interface AuthenticateParts {
  readonly key: (key: string, ipAddress: string | null) => Principal | Promise<Principal>;
  readonly session: (token: string) => Principal | Promise<Principal>;
  readonly service: (credentials: Credentials) => Principal | Promise<Principal>;
  /** Scheme, host and port under which callers reach this server; undefined where PUBLIC_URL is not set. */
  readonly publicOrigin: string | undefined;
}

/** Longest Authorization header looked at; our keys have 60 characters, tokens some hundred. */
const AUTHORIZATION_LENGTH_MAX = 8_192;
/** The cookie in which Clerk keeps the session token. */
const SESSION_COOKIE = '__session';

/** Finds out what kind of credential came along and asks whoever can judge it. Two at once are none: one of them lies. */
export function createAuthenticate(parts: AuthenticateParts): Authenticate {
  return function authenticate(credentials) {
    const { headers, ipAddress } = credentials;
    const { authorization } = headers;
    if (headers['x-iora-signature'] !== undefined) {
      if (authorization !== undefined) throw unauthenticated();
      return parts.service(credentials);
    }
    if (authorization !== undefined) {
      const bearer = bearerOf(authorization);
      return bearer.startsWith('iora_pk_') ? parts.key(bearer, ipAddress) : parts.session(bearer);
    }
    const cookie = sessionCookie(headers['cookie']);
    if (cookie === undefined) throw unauthenticated();
    assertSameOrigin(credentials, parts.publicOrigin);
    return parts.session(cookie);
  };
}

function bearerOf(authorization: string | string[]): string {
  if (typeof authorization !== 'string' || authorization.length > AUTHORIZATION_LENGTH_MAX) throw unauthenticated();
  const bearer = /^Bearer +([!-~]+)$/i.exec(authorization)?.[1];
  if (bearer === undefined) throw unauthenticated();
  return bearer;
}

function sessionCookie(cookies: string | string[] | undefined): string | undefined {
  if (typeof cookies !== 'string') return undefined;
  for (const cookie of cookies.split(';')) {
    const [name = '', ...value] = cookie.trim().split('=');
    if (name === SESSION_COOKIE && value.length > 0) return value.join('=').slice(0, AUTHORIZATION_LENGTH_MAX);
  }
  return undefined;
}

/**
 * A browser sends its cookies along whichever site made the request, so a write that leans on one must come from a page of
 * this very origin. Throws `forbidden`.
 */
function assertSameOrigin({ method, headers }: Credentials, publicOrigin: string | undefined): void {
  if (method === 'GET' || method === 'HEAD') return;
  const { origin, host } = headers;
  if (typeof origin === 'string' && URL.canParse(origin)) {
    // Without PUBLIC_URL the scheme is not known for certain: a proxy may have taken TLS away.
    if (publicOrigin === undefined ? new URL(origin).host === host : origin === publicOrigin) return;
  }
  throw new AppError('forbidden', 'A write by cookie must come from a page of this server: its Origin is another one.');
}
