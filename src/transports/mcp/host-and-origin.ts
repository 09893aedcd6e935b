/**
 * Host and Origin as protection against DNS rebinding demands (MCP, Streamable HTTP, "Security & Endpoint"); null when
 * fine, else the words of the refusal, to be answered with 403. This machine's own names are always a fine host; others
 * are listed in `hosts` as `name` (any port) or `name:port`. A fine origin is the host itself, for a host on this
 * machine any other on it, or one listed in `origins` (`https://app.example.com`). Without `Origin`, which only browsers
 * send, a request passes.
 */
export function checkHostAndOrigin(
  headers: { host?: string | undefined; origin?: string | undefined },
  allowed: { hosts: readonly string[]; origins: readonly string[] },
): string | null {
  const host = parseAuthority(headers.host);
  if (host === null) return 'The Host header is missing or malformed.';
  if (!isLoopback(host) && !allowed.hosts.includes(host.name) && !allowed.hosts.includes(host.text)) {
    return 'This server does not answer for the host in the Host header; its operator names it with PUBLIC_URL.';
  }
  if (headers.origin === undefined || allowed.origins.includes(headers.origin.toLowerCase())) return null;
  const origin = parseAuthority(originPattern.exec(headers.origin)?.[1]);
  if (origin === null) return 'The Origin header is malformed.';
  if (origin.text === host.text || (isLoopback(host) && isLoopback(origin))) return null;
  return 'The site in the Origin header may not call this server.';
}

interface Authority {
  readonly text: string;
  /** Without the port. */
  readonly name: string;
}

// Stricter than a URL parser on purpose: in `evil.example@localhost` that would find the host `localhost`.
const authorityPattern = /^(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::\d{1,5})?$/;
const originPattern = /^https?:\/\/(.+)$/i;

function parseAuthority(value: string | undefined): Authority | null {
  const [text, name] = authorityPattern.exec(value?.toLowerCase() ?? '') ?? [];
  return text === undefined || name === undefined ? null : { text, name };
}

function isLoopback({ name }: Authority): boolean {
  return name === 'localhost' || name === '127.0.0.1' || name === '[::1]';
}
