import type { FastifyInstance } from 'fastify';
import { AppError } from '../../kernel/errors.ts';
import type { Responder } from './respond.ts';
import { isAt } from './router-path.ts';

/**
 * Answers what no route matches: 405 with `Allow` where the path exists under other methods, else 404. To be called
 * before the first route is added, because it watches them being added. CORS preflights (OPTIONS) get 405 as well.
 */
export function answerUnknownRoutes(app: FastifyInstance, responder: Responder): void {
  const routes: { readonly pattern: string; readonly methods: readonly string[] }[] = [];
  app.addHook('onRoute', ({ url, method }) => {
    routes.push({ pattern: url, methods: [method].flat() });
  });

  app.setNotFoundHandler((request, reply) => {
    const [path = ''] = request.url.split('?', 1);
    const allow = [...new Set(routes.filter(({ pattern }) => isAt(pattern, path)).flatMap(({ methods }) => methods))];
    const about = { route: null, transport: 'http' } as const;
    if (allow.length === 0) {
      const detail = `Nothing is under this path; ${responder.docsUrl}/docs lists what there is.`;
      responder.refuse(request, reply, new AppError('not_found', detail), about);
    } else {
      const methods = allow.sort().join(', ');
      const error = new AppError('method_not_allowed', `This path takes ${methods}.`, { details: { allow } });
      responder.refuse(request, reply, error, about, ['Allow', methods]);
    }
  });
}
