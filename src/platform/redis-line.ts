import { once } from 'node:events';
import type { Redis as Client, Cluster } from 'ioredis';
import { backoffMs } from '../lib/backoff.ts';

/**
 * One connection to Redis that is made anew for as long as it is open. The client's own reconnecting stays off: it does not say
 * when a subscription holds again, does not notice a server that went silent, and may send a command twice.
 */
export interface Line {
  /** The client while it may be used, else undefined. */
  readonly client: Client | Cluster | undefined;
  /** Starts connecting, once. */
  connect(): void;
  /** Gives this client up and makes another. */
  drop(client: Client | Cluster, error: unknown): void;
  close(): Promise<void>;
}

export interface LineOptions {
  /** A new client, connecting, that ends instead of reconnecting. */
  readonly make: () => Client | Cluster;
  /** Makes a connected client fit for use; what it rejects with counts as a loss. */
  readonly prepare: (client: Client | Cluster) => Promise<void>;
  /** Told once of every outage, by its first error. */
  readonly onLost: (error: RedisUnavailableError) => void;
}

/** Redis did not do what it was asked, and may do so later. Carries no command, for those hold passwords. */
export class RedisUnavailableError extends Error {
  constructor(reason: unknown) {
    super(`Redis is away: ${reasonOf(reason)}`);
    this.name = 'RedisUnavailableError';
  }
}

/** Longest wait for the answer to one command; Redis needs well under a millisecond. */
export const COMMAND_TIMEOUT_MS = 1_000;
const RECONNECT = { baseMs: 100, maxMs: 2_000 };
/** A half-open connection shows within this time and COMMAND_TIMEOUT_MS: each beat is a command with an answer. */
const HEARTBEAT_MS = 2_000;
/** A server that answers says goodbye within this; the socket of one that does not is closed. */
export const GOODBYE_MS = 500;

/** A line that connects when it is told to. */
export function createLine(options: LineOptions): Line {
  let current: Client | Cluster | undefined;
  let begun = false;
  let ready = false;
  let closed = false;
  let told = false;
  let attempt = 0;
  let timer: NodeJS.Timeout | undefined;

  function connect(): void {
    const client = options.make();
    let reason: unknown = 'the connection was closed';
    current = client;
    client.on('error', (error: unknown) => {
      reason = error;
    });
    client.once('end', () => drop(client, reason));
    client.once('ready', () => {
      options.prepare(client).then(
        () => begin(client),
        (error: unknown) => drop(client, error),
      );
    });
  }

  function begin(client: Client | Cluster): void {
    if (client !== current || closed) return;
    ready = true;
    told = false;
    attempt = 0;
    beat(client);
  }

  function beat(client: Client | Cluster): void {
    timer = setTimeout(() => {
      client.ping().then(
        () => (client === current && !closed ? beat(client) : undefined),
        (error: unknown) => drop(client, error),
      );
    }, HEARTBEAT_MS);
    timer.unref();
  }

  function drop(client: Client | Cluster, error: unknown): void {
    if (client !== current) return;
    current = undefined;
    ready = false;
    clearTimeout(timer);
    client.disconnect();
    if (closed) return;
    if (!told) options.onLost(new RedisUnavailableError(error));
    told = true;
    attempt += 1;
    timer = setTimeout(connect, backoffMs(attempt, RECONNECT));
    timer.unref();
  }

  return {
    get client() {
      return ready ? current : undefined;
    },
    connect() {
      if (!begun && !closed) connect();
      begun = true;
    },
    drop,
    async close() {
      closed = true;
      clearTimeout(timer);
      const client = current;
      if (client === undefined) return;
      const bound = new AbortController();
      const late = setTimeout(() => bound.abort(), GOODBYE_MS);
      const ended = once(client, 'end', { signal: bound.signal });
      drop(client, undefined);
      await ended.catch(() => undefined);
      clearTimeout(late);
    },
  };
}

/** What went wrong, in words alone: errors of the client also carry the command with all its arguments. */
function reasonOf(reason: unknown): string {
  if (!(reason instanceof Error)) return String(reason);
  // Trying several addresses of one name fails with a code and no message.
  return reason.message || String((reason as NodeJS.ErrnoException).code ?? reason.name);
}
