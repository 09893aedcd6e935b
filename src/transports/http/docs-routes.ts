import type { FastifyInstance } from 'fastify';
import type { Answer } from './answer.ts';
import { pageHeaders } from './docs-layout.ts';
import { docsPage } from './docs-page.ts';
import { errorsPage } from './errors-page.ts';
import { type OpenApiParts, openApiDocument } from './openapi.ts';
import type { Responder } from './respond.ts';

/** The OpenAPI document and the pages made from it. They cannot change while the server runs, so each is made once. */
export function addDocsRoutes(app: FastifyInstance, parts: OpenApiParts, responder: Responder): void {
  const document = openApiDocument(parts);
  const html = (body: string) => open('text/html; charset=utf-8', body, pageHeaders);
  const pages: Readonly<Record<string, () => Answer>> = {
    '/openapi.json': () => open('application/json', JSON.stringify(document)),
    '/docs': () => html(docsPage({ ...document, servers: [{ url: parts.publicUrl ?? listeningUrl(app) }] })),
    '/docs/errors': () => html(errorsPage(parts.version)),
    '/': () => ({ status: 302, contentType: 'text/plain', body: '', headers: ['location', '/docs'] }),
  };
  for (const [path, make] of Object.entries(pages)) {
    const about = { route: path, transport: 'http' } as const;
    let made: Answer | undefined;
    app.get(path, (request, reply) => {
      made ??= make();
      responder.send(request, reply, made, about);
    });
  }
}

/** Where the server listens, which is known only once it does; examples need an address that works. */
function listeningUrl(app: FastifyInstance): string {
  const address = app.server.address();
  if (address === null || typeof address === 'string') return 'http://127.0.0.1';
  const anyHost = address.address === '0.0.0.0' || address.address === '::';
  const host = anyHost ? '127.0.0.1' : address.family === 'IPv6' ? `[${address.address}]` : address.address;
  return `http://${host}:${address.port}`;
}

/** The same for everybody, but to be asked for again: the next release may differ. */
function open(contentType: string, body: string, headers: readonly string[] = []): Answer {
  return { status: 200, contentType, body, headers, cacheControl: 'no-cache' };
}
