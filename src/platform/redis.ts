import { Redis as Client, Cluster, type RedisOptions } from 'ioredis';
import { parseRedisUrl, type RedisAddress } from './redis-address.ts';
import { COMMAND_TIMEOUT_MS, createLine, GOODBYE_MS, type Line, RedisUnavailableError } from './redis-line.ts';

export { RedisUnavailableError } from './redis-line.ts';

/**
 * The Redis that instances share. Every key and channel begins with the prefix. A call made while Redis is away rejects at once
 * with RedisUnavailableError, and one that gets no answer after a second: nothing waits for Redis to come back, and nothing is
 * sent twice, since a command whose answer was lost may have been carried out.
 */
export interface Redis {
  /** True while commands are answered and every subscription hears. */
  readonly connected: boolean;
  /** Starts connecting; until then it is away. */
  connect(): void;
  publish(channel: string, payload: string): Promise<void>;
  /** Hears messages, on a connection of its own, from `connect` until `close`. */
  subscribe(options: SubscribeOptions): void;
  /** Notes the key until that moment; false when it was noted before, by whichever instance. */
  setOnce(key: string, expiresAtMs: number): Promise<boolean>;
  /** Resolves when Redis answers. */
  ping(): Promise<void>;
  close(): Promise<void>;
}

export interface SubscribeOptions {
  readonly channels: Readonly<Record<string, (payload: string) => void>>;
  /** Called at every (re)subscription: whatever was sent while there was none has been missed. */
  readonly onConnect?: () => void;
}

export interface RedisConnectionOptions {
  /** As in REDIS_URL, in any of its four forms. */
  readonly url: string;
  readonly prefix: string;
  /** Told once of every outage of a connection. */
  readonly onLost: (error: RedisUnavailableError) => void;
}

/** Longest wait for a connection, from the network up to the first answer. */
const CONNECT_TIMEOUT_MS = 2_000;
/** Nodes a command of a cluster is passed on to, while slots move or a node has gone. */
const REDIRECTIONS_MAX = 4;

/** A connection that opens when it is told to. Throws Error for an address that is none. */
export function createRedis({ url, prefix, onLost }: RedisConnectionOptions): Redis {
  const address = parseRedisUrl(url);
  const commands = createLine({ make: () => makeClient(address), prepare: async () => undefined, onLost });
  const lines: Line[] = [commands];
  let begun = false;

  async function send<T>(command: (client: Client | Cluster) => Promise<T>): Promise<T> {
    const { client } = commands;
    if (client === undefined) throw new RedisUnavailableError('it is not connected');
    try {
      return await command(client);
    } catch (error) {
      // After a failover the old master is a replica that answers, and would for ever: another connection finds the new one.
      if (error instanceof Error && error.message.startsWith('READONLY')) commands.drop(client, error);
      throw new RedisUnavailableError(error);
    }
  }

  return {
    get connected() {
      return lines.every(({ client }) => client !== undefined);
    },
    connect() {
      begun = true;
      for (const line of lines) line.connect();
    },
    async publish(channel, payload) {
      await send((client) => client.publish(prefix + channel, payload));
    },
    subscribe({ channels, onConnect }) {
      const names = Object.keys(channels).map((name) => prefix + name);
      const line = createLine({
        make: () => makeSubscriber(address, commands.client),
        async prepare(client) {
          client.on('message', (name: string, payload: string) => channels[name.slice(prefix.length)]?.(payload));
          await client.subscribe(...names);
          onConnect?.();
        },
        onLost,
      });
      lines.push(line);
      if (begun) line.connect();
    },
    setOnce: async (key, expiresAtMs) =>
      (await send((client) => client.set(prefix + key, '', 'PXAT', expiresAtMs, 'NX'))) === 'OK',
    async ping() {
      await send((client) => client.ping());
    },
    async close() {
      await Promise.all(lines.map((line) => line.close()));
    },
  };
}

function makeClient(address: RedisAddress): Client | Cluster {
  if (address.kind !== 'cluster') return makeSubscriber(address, undefined);
  return new Cluster([...address.hosts], {
    redisOptions: connectionOptions(address),
    clusterRetryStrategy: null,
    enableOfflineQueue: false,
    maxRedirections: REDIRECTIONS_MAX,
    slotsRefreshTimeout: COMMAND_TIMEOUT_MS,
  });
}

/** A connection to one server. In a cluster any node hears every message, so whichever of those known will do. */
function makeSubscriber(address: RedisAddress, known: Client | Cluster | undefined): Client {
  const options = { ...connectionOptions(address), enableOfflineQueue: false, retryStrategy: null };
  if (address.kind === 'sentinel') {
    return new Client({
      ...options,
      sentinels: [...address.hosts],
      name: address.master ?? '',
      sentinelCommandTimeout: COMMAND_TIMEOUT_MS,
      sentinelRetryStrategy: () => null,
    });
  }
  const found =
    known instanceof Cluster ? known.nodes().map(({ options: { host = '', port = 0 } }) => ({ host, port })) : [];
  const hosts = [...address.hosts, ...found];
  return new Client({ ...options, ...hosts[Math.floor(Math.random() * hosts.length)] });
}

function connectionOptions({ login, password, db, tls }: RedisAddress): RedisOptions {
  return {
    username: login,
    password,
    db,
    tls: tls ? {} : undefined,
    connectTimeout: CONNECT_TIMEOUT_MS,
    commandTimeout: COMMAND_TIMEOUT_MS,
    disconnectTimeout: GOODBYE_MS,
    connectionName: 'iora',
    disableClientInfo: true,
  };
}
