// What IORA is compared with, a program of its own: the least that Node's HTTP server can do, which is to answer every
// request with one constant JSON text. It is sent that text, and answers with the port it listens on.
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

process.once('message', ({ body }: { body: string }) => {
  const headers = ['content-type', 'application/json', 'content-length', String(Buffer.byteLength(body))];
  const server = createServer((_request, response) => {
    response.writeHead(200, headers);
    response.end(body);
  });
  server.listen(0, '127.0.0.1', () => process.send?.({ port: (server.address() as AddressInfo).port }));
});
process.on('disconnect', () => process.exit(0));
