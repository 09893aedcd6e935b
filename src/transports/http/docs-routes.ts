import type { FastifyInstance } from 'fastify';
import type { Answer } from './answer.ts';
import { pageHeaders } from './docs-layout.ts';
import { docsPage } from './docs-page.ts';
import { errorsPage } from './errors-page.ts';
import { type OpenApiParts, openApiDocument } from './openapi.ts';
import type { Responder } from './respond.ts';

/** The OpenAPI document and the pages made from it. They cannot change while the server runs, so they are made once. */
export function addDocsRoutes(app: FastifyInstance, parts: OpenApiParts, responder: Responder): void {
  const document = openApiDocument(parts);
  const answers: Readonly<Record<string, Answer>> = {
    '/openapi.json': open('application/json', JSON.stringify(document)),
    '/docs': open('text/html; charset=utf-8', docsPage(document), pageHeaders),
    '/docs/errors': open('text/html; charset=utf-8', errorsPage(parts.version), pageHeaders),
  };
  for (const [path, answer] of Object.entries(answers)) {
    const about = { route: path, transport: 'http' } as const;
    app.get(path, (request, reply) => responder.send(request, reply, answer, about));
  }
}

/** The same for everybody, but to be asked for again: the next release may differ. */
function open(contentType: string, body: string, headers: readonly string[] = []): Answer {
  return { status: 200, contentType, body, headers, cacheControl: 'no-cache' };
}
