import { Socket } from 'node:net';
import pg from 'pg';
import { backoffMs } from '../lib/backoff.ts';
import type { Connection } from './connection.ts';

/** Messages between instances by LISTEN/NOTIFY, on one connection of its own that reconnects for as long as it is open. */
export interface Bus {
  /** True while messages arrive. */
  readonly connected: boolean;
  close(): Promise<void>;
}

export interface BusOptions {
  readonly connection: Connection;
  readonly channels: Readonly<Record<string, (payload: string) => void>>;
  /** Called at every (re)connection: whatever was sent before it has been missed. */
  readonly onConnect: () => void;
  readonly onError?: (error: Error) => void;
  readonly connectionTimeoutMs: number;
  readonly applicationName: string;
}

const RECONNECT = { baseMs: 100, maxMs: 2_000 };
/** Each beat is a query with an answer: a half-open connection shows within both times together, whatever it is used for. */
const HEARTBEAT_MS = 2_000;
/** Longest wait for an answer; the server needs under a millisecond for each of them. */
const ANSWER_TIMEOUT_MS = 3_000;
/** Longest time in which `connected` is still true although nothing arrives any more. */
export const SILENCE_NOTICED_MS = HEARTBEAT_MS + ANSWER_TIMEOUT_MS;
/** A server that answers says goodbye within this; the socket of one that does not is closed. */
const GOODBYE_MS = 500;

interface Listener {
  readonly client: pg.Client;
  /** Ours to close when nobody answers any more. */
  readonly socket: Socket;
}

/** Starts listening; the first connection may still be under way when this returns. */
export function openBus(options: BusOptions): Bus {
  let current: Listener | undefined;
  let connected = false;
  let closed = false;
  let attempt = 0;
  let timer: NodeJS.Timeout | undefined;

  async function connect(): Promise<void> {
    const socket = new Socket();
    const client = new pg.Client({
      connectionString: options.connection.url,
      ssl: options.connection.ssl,
      connectionTimeoutMillis: options.connectionTimeoutMs,
      query_timeout: ANSWER_TIMEOUT_MS,
      keepAlive: true,
      application_name: options.applicationName,
      stream: () => socket,
    });
    const next = { client, socket };
    current = next;
    client.on('error', (error) => lost(next, error));
    client.on('end', () => lost(next));
    client.on('notification', ({ channel, payload }) => options.channels[channel]?.(payload ?? ''));
    try {
      await client.connect();
      for (const channel of Object.keys(options.channels)) await client.query(`LISTEN ${pg.escapeIdentifier(channel)}`);
      if (next !== current || closed) return;
      connected = true;
      attempt = 0;
      options.onConnect();
      beat(next);
    } catch (error) {
      lost(next, error instanceof Error ? error : new Error(String(error)));
    }
  }

  function beat(listener: Listener): void {
    timer = setTimeout(() => {
      listener.client.query('SELECT 1').then(
        () => (listener === current && !closed ? beat(listener) : undefined),
        (error: Error) => lost(listener, error),
      );
    }, HEARTBEAT_MS);
    timer.unref();
  }

  function lost(listener: Listener, error?: Error): void {
    if (listener !== current) return;
    current = undefined;
    connected = false;
    clearTimeout(timer);
    // A connection that no longer answers is not asked to say goodbye.
    listener.socket.destroy();
    if (closed) return;
    if (error !== undefined) options.onError?.(error);
    attempt += 1;
    timer = setTimeout(() => void connect(), backoffMs(attempt, RECONNECT));
    timer.unref();
  }

  void connect();
  return {
    get connected() {
      return connected;
    },
    async close() {
      closed = true;
      connected = false;
      clearTimeout(timer);
      if (current === undefined) return;
      const { client, socket } = current;
      const bound = setTimeout(() => socket.destroy(), GOODBYE_MS);
      await client.end().catch(() => undefined);
      clearTimeout(bound);
    },
  };
}
