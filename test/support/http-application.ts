// An application behind a real HTTP server, as `serve` puts it together, so that several of them can share one database and
// requests can be sent byte by byte.
import { connect } from 'node:net';
import { createHealth } from '../../src/features/health/index.ts';
import { type CallToSign, signedHeaders } from '../../src/lib/service-signature.ts';
import { openMetrics } from '../../src/platform/metrics.ts';
import { createHttpServer } from '../../src/transports/http/server.ts';
import { checkHostAndOrigin, createMcpTransport } from '../../src/transports/mcp/index.ts';
import { type ApplicationOptions, startApplication, type TestApplication } from './application.ts';
import type { TestDatabase } from './postgres.ts';

export interface HttpApplication {
  readonly iora: TestApplication;
  /** http://127.0.0.1:port */
  readonly url: string;
  close(): Promise<void>;
}

/** Starts an application on that database and a server for it on a free port. */
export async function startHttpApplication(
  database: TestDatabase,
  options: ApplicationOptions = {},
): Promise<HttpApplication> {
  const iora = await startApplication(database, options);
  const { app } = iora;
  const mcp = createMcpTransport({ operations: app.operations, version: '0.0.0' });
  const health = createHealth({
    ...app,
    database: app.probeDatabase,
    pool: app.database.stats,
    accepting: () => true,
    version: '0.0.0',
  });
  const server = createHttpServer({
    operations: app.operations,
    endpoints: [...app.endpoints, ...health.endpoints],
    invoke: app.invoke,
    authenticate: app.authenticate,
    rightsHeard: app.rightsHeard,
    mcp: { ...mcp, resource: null, check: (headers) => checkHostAndOrigin(headers, { hosts: [], origins: [] }) },
    log: iora.log,
    metrics: openMetrics(),
    version: '0.0.0',
    publicUrl: undefined,
    trustedProxies: [],
  });
  await server.listen({ host: '127.0.0.1', port: 0 });
  const { port } = server.server.address() as { port: number };
  return {
    iora,
    url: `http://127.0.0.1:${port}`,
    async close() {
      server.server.closeAllConnections();
      await server.close();
      await mcp.close();
      await iora.close();
    },
  };
}

/** A secret of a service, as SERVICE_SECRETS spells it. */
export interface TestSigner {
  readonly keyId: string;
  readonly secret: Buffer;
}

export interface SignedRequest extends Omit<CallToSign, keyof TestSigner | 'method'> {
  readonly method?: string;
  /** When it is signed, in Unix milliseconds; now where absent. */
  readonly atMs?: number;
}

/** The headers of a request that is signed as it should be. */
export function signedBy(signer: TestSigner, request: SignedRequest): Record<string, string> {
  const { atMs = Date.now(), method = 'POST', ...call } = request;
  return signedHeaders({ ...call, ...signer, method }, atMs);
}

export interface RawAnswer {
  readonly status: number;
  readonly body: string;
}

/** Sends a request head and body byte by byte, as no client would let one, and reads the answer to its end. */
export function sendRaw(url: string, head: readonly string[], body = ''): Promise<RawAnswer> {
  const { hostname, port, host } = new URL(url);
  return new Promise((resolve, reject) => {
    const socket = connect({ host: hostname, port: Number(port) });
    let text = '';
    socket.setEncoding('utf8').on('data', (chunk) => {
      text += chunk;
    });
    socket.on('error', reject);
    socket.on('end', () => {
      const [first = '', ...rest] = text.split('\r\n\r\n');
      resolve({ status: Number(first.split(' ')[1]), body: rest.join('\r\n\r\n') });
    });
    const [line, ...headers] = head;
    const lines = [
      line,
      `Host: ${host}`,
      'Connection: close',
      `Content-Length: ${Buffer.byteLength(body)}`,
      ...headers,
    ];
    socket.write(`${lines.join('\r\n')}\r\n\r\n${body}`);
  });
}
