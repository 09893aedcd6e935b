import type { Server } from 'node:http';
import type { Socket } from 'node:net';
import { STALLED_CHECK_INTERVAL_MS } from './http-limits.ts';

/** The open connections of a server, for the two cases that Node leaves open for ever. */
export interface Connections {
  /**
   * Ends those that have not sent a byte yet. Node counts them as busy, so closing the server would wait for them;
   * browsers open such connections in advance.
   */
  endUnused(): void;
  /**
   * Ends those whose peer has not taken the answer that waited for it when this was called last. A timeout on every
   * socket would do the same, but cost every request the setting of timers.
   */
  endStalled(): void;
}

/** Keeps the connections of a server, and ends the stalled ones until it closes. */
export function trackConnections(server: Server): Connections {
  const waiting = new Map<Socket, number>();
  server.on('connection', (socket: Socket) => {
    waiting.set(socket, 0);
    socket.once('close', () => waiting.delete(socket));
  });

  const connections: Connections = {
    endUnused() {
      for (const socket of waiting.keys()) if (socket.bytesRead === 0) socket.destroy();
    },
    endStalled() {
      for (const [socket, before] of waiting) {
        const now = socket.writableLength;
        if (now > 0 && now === before) socket.destroy();
        else waiting.set(socket, now);
      }
    },
  };
  server.once('listening', () => {
    const timer = setInterval(connections.endStalled, STALLED_CHECK_INTERVAL_MS).unref();
    server.once('close', () => clearInterval(timer));
  });
  return connections;
}
