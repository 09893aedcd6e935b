// An identity provider on loopback: discovery and keys of an OIDC issuer, the Backend API of Clerk as far as it hands out
// keys, and tokens of both. Keys are made afresh; every request is counted.
import { createPublicKey, generateKeyPairSync, type KeyObject, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { SignJWT } from 'jose';

export type SigningAlgorithm = 'RS256' | 'ES256' | 'EdDSA';

/** What a token differs in from a valid one. A claim or header that is undefined is left out. */
export interface TokenChange {
  readonly claims?: Readonly<Record<string, unknown>>;
  /** `alg` chooses the key too, `kid` only names one. */
  readonly header?: Readonly<Record<string, unknown>>;
  /** Signs instead of the provider's newest key. */
  readonly key?: KeyObject | Uint8Array;
}

export interface IdentityProvider {
  readonly url: string;
  /** Issuer of the OIDC tokens; that of Clerk is `clerkIssuer`. */
  readonly issuer: string;
  readonly clerkIssuer: string;
  /** Settings of a server that signs people in here, as in the environment. */
  readonly settings: {
    /** Keys are fetched with the secret key. */
    readonly clerk: Readonly<Record<string, string>>;
    /** The key is given: nothing is ever fetched. */
    readonly clerkPem: Readonly<Record<string, string>>;
    readonly oidc: Readonly<Record<string, string>>;
  };
  /** A session token of Clerk, of a person of its own unless `sub` is given. */
  clerkToken(change?: TokenChange): Promise<string>;
  /** A token of the OIDC issuer made for IORA, of a person of its own unless `sub` is given. */
  oidcToken(change?: TokenChange): Promise<string>;
  /** An OAuth access token (at+jwt) of Clerk for the MCP resource, with the scope `tools:read`. */
  oauthToken(change?: TokenChange): Promise<string>;
  /** Method and path of every request so far, those cut off while down included. */
  requests(): readonly string[];
  /** Makes new keys, which sign from now on; the older ones stay published unless withdrawn. */
  rotate(options?: { readonly withdraw?: boolean }): void;
  /** The newest public key, as PEM. */
  publicPem(): string;
  /** While down, connections are cut without an answer. */
  setDown(down: boolean): void;
  stop(): Promise<void>;
}

/** Where callers reach the server under test; nobody connects there. */
export const PUBLIC_URL = 'https://iora.test';
const CLERK_HOST = 'clerk.iora.test';
const CLERK_SECRET_KEY = 'sk_test_identityprovider';
const AUDIENCE = 'iora-api';
const LIFETIME_SECONDS = 60;

interface SigningKey {
  readonly alg: SigningAlgorithm;
  readonly kid: string;
  readonly privateKey: KeyObject;
}

/** Starts it on a free port. `discovery` overrides what its discovery document says. */
export async function startIdentityProvider(
  options: { readonly discovery?: Readonly<Record<string, unknown>> } = {},
): Promise<IdentityProvider> {
  const requests: string[] = [];
  let published = newKeys();
  let current = published;
  let down = false;

  const server = createServer((request, response) => {
    requests.push(`${request.method} ${request.url}`);
    if (down) {
      request.socket.destroy();
      return;
    }
    const answer = answerTo(request.url ?? '', request.headers.authorization);
    response.writeHead(answer === undefined ? 404 : 200, { 'content-type': 'application/json' });
    response.end(JSON.stringify(answer ?? { errors: [{ code: 'not_found', message: 'not here' }] }));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const clerkIssuer = `https://${CLERK_HOST}`;

  function answerTo(path: string, authorization: string | undefined): unknown {
    if (path === '/.well-known/openid-configuration')
      return { issuer: url, jwks_uri: `${url}/jwks`, ...options.discovery };
    if (path === '/jwks') return { keys: published.map(toJwk) };
    if (path !== '/v1/jwks' || authorization !== `Bearer ${CLERK_SECRET_KEY}`) return undefined;
    return { keys: published.filter(({ alg }) => alg === 'RS256').map(toJwk) };
  }

  function sign(typ: string, claims: Record<string, unknown>, { claims: changed, header, key }: TokenChange) {
    const alg = String(header?.['alg'] ?? 'RS256');
    const signer = current.find((candidate) => candidate.alg === alg);
    const now = Math.floor(Date.now() / 1_000);
    const times = { iat: now, nbf: now, exp: now + LIFETIME_SECONDS };
    return new SignJWT({ ...times, ...claims, ...changed })
      .setProtectedHeader({ typ, ...(signer === undefined ? {} : { kid: signer.kid }), ...header, alg })
      .sign(key ?? signer?.privateKey ?? raise(`no key for ${alg}`));
  }

  const publicPem = () =>
    createPublicKey(rsaOf(current).privateKey).export({ type: 'spki', format: 'pem' }).toString().trim();
  const common = { PUBLIC_URL };
  const publishable = {
    ...common,
    CLERK_PUBLISHABLE_KEY: `pk_test_${Buffer.from(`${CLERK_HOST}$`).toString('base64')}`,
    CLERK_API_URL: url,
  };
  return {
    url,
    issuer: url,
    clerkIssuer,
    settings: {
      clerk: { ...publishable, CLERK_SECRET_KEY },
      clerkPem: { ...publishable, CLERK_JWT_KEY: publicPem() },
      oidc: { ...common, OIDC_ISSUER: url, OIDC_AUDIENCE: AUDIENCE },
    },
    clerkToken: (change = {}) =>
      sign('JWT', { iss: clerkIssuer, sub: newId('user'), sid: newId('sess'), azp: PUBLIC_URL, v: 2 }, change),
    oidcToken: (change = {}) => sign('JWT', { iss: url, sub: newId('person'), aud: AUDIENCE }, change),
    oauthToken: (change = {}) =>
      sign(
        'at+jwt',
        {
          iss: clerkIssuer,
          sub: newId('user'),
          aud: `${PUBLIC_URL}/mcp`,
          client_id: 'client_test',
          jti: newId('oat'),
          scope: 'tools:read',
        },
        change,
      ),
    requests: () => requests,
    rotate({ withdraw = false } = {}) {
      current = newKeys();
      published = withdraw ? current : [...published, ...current];
    },
    publicPem,
    setDown(isDown) {
      down = isDown;
    },
    async stop() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

/** One of each kind. */
function newKeys(): readonly SigningKey[] {
  const pairs = {
    RS256: generateKeyPairSync('rsa', { modulusLength: 2_048 }),
    ES256: generateKeyPairSync('ec', { namedCurve: 'P-256' }),
    EdDSA: generateKeyPairSync('ed25519'),
  };
  return (['RS256', 'ES256', 'EdDSA'] as const).map((alg) => ({
    alg,
    kid: `key_${randomUUID()}`,
    privateKey: pairs[alg].privateKey,
  }));
}

function rsaOf(keys: readonly SigningKey[]): SigningKey {
  return keys.find(({ alg }) => alg === 'RS256') ?? raise('there is no RSA key');
}

function toJwk({ alg, kid, privateKey }: SigningKey) {
  return { ...createPublicKey(privateKey).export({ format: 'jwk' }), use: 'sig', alg, kid };
}

function newId(kind: string): string {
  return `${kind}_${randomUUID().replaceAll('-', '')}`;
}

function raise(message: string): never {
  throw new Error(message);
}
