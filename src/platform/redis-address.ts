/** Where a Redis is, read off REDIS_URL. Parameters of the URL never become options of the client, but for `db`. */
export interface RedisAddress {
  readonly kind: 'single' | 'sentinel' | 'cluster';
  /** The server, the sentinels, or nodes of the cluster to begin with; at least one. */
  readonly hosts: readonly { readonly host: string; readonly port: number }[];
  /** What the sentinels call the server to be used; null without sentinels. */
  readonly master: string | null;
  readonly login: string | undefined;
  readonly password: string | undefined;
  readonly db: number;
  /** Whether the connection is encrypted; the server's certificate and name are then always verified. */
  readonly tls: boolean;
}

const PORT = 6_379;
const SENTINEL_PORT = 26_379;
const schemes = {
  redis: 'single',
  rediss: 'single',
  'redis-sentinel': 'sentinel',
  'redis-cluster': 'cluster',
} as const;

/**
 * Reads `redis://`, `rediss://` (`/db`), `redis-sentinel://h:p,h:p/master` (`?db=`) and `redis-cluster://h:p,h:p`, each with
 * `login:password@` before the hosts where needed; those are for Redis, sentinels are asked without. Throws Error, without the
 * address, when it is none of them.
 */
export function parseRedisUrl(url: string): RedisAddress {
  const [, scheme = '', login, hosts = '', path = '', query] =
    /^([a-z-]+):\/\/(?:([^@/]*)@)?([^@/?#\s]+)(?:\/([^?#\s]*))?(?:\?(\S*))?$/.exec(url) ?? [];
  if (!isScheme(scheme)) throw malformed();
  const kind = schemes[scheme];
  const [name = '', ...password] = login?.split(':') ?? [];
  const db = kind === 'single' ? path : (new URLSearchParams(query).get('db') ?? '');
  if (!/^\d{0,4}$/.test(db) || (kind === 'sentinel') !== (kind !== 'single' && path !== '')) throw malformed();
  if (kind === 'cluster' && Number(db) !== 0) throw malformed();
  return {
    kind,
    hosts: hosts.split(',').map((host) => hostOf(host, kind === 'sentinel' ? SENTINEL_PORT : PORT)),
    master: kind === 'sentinel' ? decode(path) : null,
    login: name === '' ? undefined : decode(name),
    password: password.length === 0 ? undefined : decode(password.join(':')),
    db: Number(db),
    tls: scheme === 'rediss',
  };
}

function isScheme(text: string): text is keyof typeof schemes {
  return Object.hasOwn(schemes, text);
}

function hostOf(text: string, defaultPort: number): { host: string; port: number } {
  if (!URL.canParse(`redis://${text}`)) throw malformed();
  const { hostname, port } = new URL(`redis://${text}`);
  if (hostname === '') throw malformed();
  // The brackets belong to the URL, not to the IPv6 address.
  return { host: hostname.replace(/^\[(.*)\]$/, '$1'), port: port === '' ? defaultPort : Number(port) };
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw malformed();
  }
}

function malformed(): Error {
  return new Error('REDIS_URL is not an address of Redis, of sentinels with the name of a master, or of a cluster');
}
