import { readFileSync } from 'node:fs';
import type { ConnectionOptions } from 'node:tls';

/** A PostgreSQL URL as the driver is given it: encryption decided here, never by parameters that would override it. */
export interface Connection {
  readonly url: string;
  readonly ssl: ConnectionOptions | false;
}

/** URL parameters about TLS; the driver would let them replace the options built here. */
const TLS_PARAMETERS = ['sslmode', 'sslrootcert', 'sslcert', 'sslkey', 'uselibpqcompat'];

/** What is wrong with a URL whose mode is not offered. */
export const TLS_PROBLEM = 'asks for TLS in a way that is not supported: use sslmode=verify-full, or sslmode=disable';

type TlsMode = 'disable' | 'require' | 'verify-full';
const offeredModes: readonly string[] = ['disable', 'require', 'verify-full'] satisfies TlsMode[];

/**
 * Returns what the URL's `sslmode` asks for, undefined for a mode that is not offered. Without one a CA file means
 * `verify-full`, else TLS is not used.
 */
export function tlsModeOf(url: string, hasCaFile: boolean): TlsMode | undefined {
  const { searchParams } = new URL(url);
  // The driver's own `ssl` would say something else beside it.
  if (searchParams.has('ssl')) return undefined;
  const mode = searchParams.get('sslmode') ?? (hasCaFile ? 'verify-full' : 'disable');
  return offeredModes.includes(mode) ? (mode as TlsMode) : undefined;
}

/**
 * Reads `sslmode` off the URL. Where TLS is used the server's certificate and name are always verified: a mode that encrypts
 * to whoever answers is not offered. Throws Error, without the URL, for a mode that is not offered and for a CA file that
 * cannot be read.
 */
export function parseConnection(url: string, caFile?: string): Connection {
  const mode = tlsModeOf(url, caFile !== undefined);
  if (mode === undefined) throw new Error(`the database URL ${TLS_PROBLEM}`);
  const parsed = new URL(url);
  for (const name of TLS_PARAMETERS) parsed.searchParams.delete(name);
  if (mode === 'disable') return { url: parsed.href, ssl: false };
  return {
    url: parsed.href,
    ssl: { rejectUnauthorized: true, ...(caFile === undefined ? {} : { ca: readFileSync(caFile, 'utf8') }) },
  };
}
