// What session calls are compared with, a program of its own: Fastify and the token check of @clerk/backend, and nothing else.
// It is sent the key to verify with and the text to answer, and answers with the port it listens on.
import type { AddressInfo } from 'node:net';
import { verifyToken } from '@clerk/backend';
import Fastify from 'fastify';

interface Order {
  readonly body: string;
  readonly jwtKey: string;
  readonly authorizedParties: string[];
}

process.once('message', async ({ body, jwtKey, authorizedParties }: Order) => {
  const app = Fastify();
  app.post('/tools/get_price', async (request, reply) => {
    const token = request.headers.authorization?.slice('Bearer '.length) ?? '';
    try {
      await verifyToken(token, { jwtKey, authorizedParties });
    } catch {
      return reply.code(401).send();
    }
    return reply.header('content-type', 'application/json').send(body);
  });
  await app.listen({ port: 0, host: '127.0.0.1' });
  process.send?.({ port: (app.server.address() as AddressInfo).port });
});
process.on('disconnect', () => process.exit(0));
