// A TCP proxy that can go silent or hang up, to stand between a client and a real server.
import { connect, createServer, type Server, type Socket } from 'node:net';

/** `pass` forwards; `blackhole` takes everything and answers nothing, new connections too; `reset` cuts every connection. */
export type ProxyMode = 'pass' | 'blackhole' | 'reset';

export interface TcpProxy {
  readonly port: number;
  /** Connections that clients have opened so far. */
  readonly accepted: number;
  /** Changes the mode at once. Connections that met a blackhole have lost bytes, so `pass` cuts them. */
  set(mode: ProxyMode): void;
  close(): Promise<void>;
}

/** Starts a proxy on a free loopback port in front of `host:port`. */
export async function startTcpProxy(target: { host: string; port: number }): Promise<TcpProxy> {
  const pairs = new Set<{ client: Socket; upstream: Socket; damaged: boolean }>();
  let mode: ProxyMode = 'pass';
  let accepted = 0;

  // Half open, so that a goodbye too goes unanswered in a blackhole.
  const server: Server = createServer({ allowHalfOpen: true }, (client) => {
    accepted += 1;
    if (mode === 'reset') return void client.resetAndDestroy();
    const upstream = connect({ port: target.port, host: target.host, allowHalfOpen: true });
    const pair = { client, upstream, damaged: false };
    pairs.add(pair);
    const forward = (from: Socket, to: Socket) => {
      from.on('data', (bytes) => {
        if (mode === 'pass' && !pair.damaged) to.write(bytes);
        else pair.damaged = true;
      });
      from.on('end', () => {
        if (mode === 'pass' && !pair.damaged) to.end();
        else pair.damaged = true;
      });
      from.on('error', () => undefined);
      from.on('close', () => {
        if (client.destroyed && upstream.destroyed) pairs.delete(pair);
        // A silent network does not tell the other side that somebody went away.
        else if (mode === 'blackhole') pair.damaged = true;
        else to.destroy();
      });
    };
    forward(client, upstream);
    forward(upstream, client);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };

  function cut(which: (pair: { damaged: boolean }) => boolean): void {
    for (const pair of pairs) {
      if (!which(pair)) continue;
      pair.client.resetAndDestroy();
      pair.upstream.destroy();
    }
  }

  return {
    port,
    get accepted() {
      return accepted;
    },
    set(next) {
      mode = next;
      if (next === 'reset') cut(() => true);
      if (next === 'pass') cut((pair) => pair.damaged);
    },
    close() {
      cut(() => true);
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}

/** The URL with the proxy in place of its server. */
export function throughProxy(url: string, proxy: TcpProxy): string {
  const parsed = new URL(url);
  parsed.hostname = '127.0.0.1';
  parsed.port = String(proxy.port);
  return parsed.href;
}
