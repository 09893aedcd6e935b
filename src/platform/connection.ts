import { readFileSync } from 'node:fs';
import type { ConnectionOptions } from 'node:tls';

/** A PostgreSQL URL as the driver is given it: encryption decided here, never by parameters that would override it. */
export interface Connection {
  readonly url: string;
  readonly ssl: ConnectionOptions | false;
}

/** URL parameters about TLS; the driver would let them replace the options built here. */
const TLS_PARAMETERS = ['sslmode', 'sslrootcert', 'sslcert', 'sslkey', 'uselibpqcompat'];

/**
 * Reads `sslmode` off the URL. TLS is used when a CA file is given or sslmode asks for it, and then the server's
 * certificate and name are always verified: a mode that encrypts to whoever answers is not offered.
 * Throws Error, without the URL, for a mode it does not know and for a CA file that cannot be read.
 */
export function parseConnection(url: string, caFile?: string): Connection {
  const parsed = new URL(url);
  const mode = parsed.searchParams.get('sslmode') ?? (caFile === undefined ? 'disable' : 'verify-full');
  for (const name of TLS_PARAMETERS) parsed.searchParams.delete(name);
  if (mode === 'disable') return { url: parsed.href, ssl: false };
  if (mode !== 'require' && mode !== 'verify-full') {
    throw new Error(`sslmode=${mode} is not supported: use verify-full, or disable`);
  }
  return {
    url: parsed.href,
    ssl: { rejectUnauthorized: true, ...(caFile === undefined ? {} : { ca: readFileSync(caFile, 'utf8') }) },
  };
}
