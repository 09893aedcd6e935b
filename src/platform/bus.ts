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
/** A half-open connection shows within this time: each beat is a query with an answer. */
const HEARTBEAT_MS = 2_000;

/** Starts listening; the first connection may still be under way when this returns. */
export function openBus(options: BusOptions): Bus {
  let client: pg.Client | undefined;
  let connected = false;
  let closed = false;
  let attempt = 0;
  let timer: NodeJS.Timeout | undefined;

  async function connect(): Promise<void> {
    const next = new pg.Client({
      connectionString: options.connection.url,
      ssl: options.connection.ssl,
      connectionTimeoutMillis: options.connectionTimeoutMs,
      query_timeout: options.connectionTimeoutMs,
      keepAlive: true,
      application_name: options.applicationName,
    });
    client = next;
    next.on('error', (error) => lost(next, error));
    next.on('end', () => lost(next));
    next.on('notification', ({ channel, payload }) => options.channels[channel]?.(payload ?? ''));
    try {
      await next.connect();
      for (const channel of Object.keys(options.channels)) await next.query(`LISTEN ${pg.escapeIdentifier(channel)}`);
      if (closed) return void (await next.end());
      connected = true;
      attempt = 0;
      options.onConnect();
      beat(next);
    } catch (error) {
      lost(next, error instanceof Error ? error : new Error(String(error)));
    }
  }

  function beat(current: pg.Client): void {
    timer = setTimeout(() => {
      current.query('SELECT 1').then(
        () => (current === client && connected ? beat(current) : undefined),
        (error: Error) => lost(current, error),
      );
    }, HEARTBEAT_MS);
    timer.unref();
  }

  function lost(current: pg.Client, error?: Error): void {
    if (current !== client) return;
    client = undefined;
    connected = false;
    clearTimeout(timer);
    // A connection that no longer answers is not asked to say goodbye.
    current.end().catch(() => undefined);
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
      clearTimeout(timer);
      await client?.end().catch(() => undefined);
    },
  };
}
