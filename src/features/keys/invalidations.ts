import { sql } from 'kysely';
import type { Log } from '../../platform/log.ts';
import type { Database, Transaction } from '../../platform/postgres.ts';
import type { Redis } from '../../platform/redis.ts';
import { acknowledgementSchema, type Message, messageSchema, parse, toMessages } from './invalidation-messages.ts';
import type { PrincipalCache, Tag } from './principal-cache.ts';

/**
 * Carries "what you know of this credential is no longer true" to every instance. The message is part of the change's
 * transaction (NOTIFY is sent at commit, never for a rollback) and, where there is a Redis, published there after the commit as
 * well; every instance drops its entries and acknowledges on the bus the news came by. Hearing twice does no harm.
 */

export type BusName = 'postgres' | 'redis';

/** Longest wait for acknowledgements; after it the answer says on how many instances the change is known to hold. */
const ACKNOWLEDGE_WAIT_MS = 2_000;
/** How long acknowledgements are still heard, for the measurement alone. */
const ACKNOWLEDGEMENTS_HEARD_MS = 10 * ACKNOWLEDGE_WAIT_MS;

export interface Effect {
  /** Live instances known to apply the change. */
  readonly effectiveOn: number;
  /** Live instances. */
  readonly of: number;
  /** Milliseconds from commit to this knowledge. */
  readonly ms: number;
}

export interface Announcement {
  /** Applies the change in this process; call after commit. */
  apply(): void;
  /** Applies it here and waits, bounded, until every live instance has acknowledged. Never rejects. */
  settle(): Promise<Effect>;
}

/** Whose rights change, and what is remembered under which tags because of it. */
export interface Change {
  readonly ownerIds: readonly string[];
  readonly tags: readonly Tag[];
}

type Channels = Readonly<Record<string, (payload: string) => void>>;

export interface Invalidations {
  /**
   * Bumps the epochs of the owners whose rights change, and sends tags and epochs to all instances when the transaction
   * commits.
   */
  announce(tx: Transaction, change: Change): Promise<Announcement>;
  /** Handlers of what each bus delivers. */
  readonly channels: Readonly<Record<BusName, Channels>>;
}

export interface InvalidationsParts {
  readonly database: Database;
  /** A second way for the same news; null without one. */
  readonly redis: Pick<Redis, 'publish'> | null;
  readonly caches: readonly PrincipalCache[];
  /** This process's instance id; null for one that serves nobody, like a command. */
  readonly instanceId: string | null;
  /** Asked in the change's own transaction, so that nothing can fail any more once the change is durable. */
  readonly liveInstances: (tx: Transaction) => Promise<readonly string[]>;
  readonly log: Log;
  /** Told of every instance that acknowledges a change made here, by the bus on which that was heard first. */
  readonly observe?: (bus: BusName, ms: number) => void;
}

/** A change made here. */
interface Announced {
  readonly messages: readonly Message[];
  readonly live: readonly string[];
  /** `message instance`, for all that have been acknowledged. */
  readonly acknowledged: Set<string>;
  committedAtMs: number | null;
  heard: () => void;
}

/** Channels have one name on PostgreSQL; on Redis the installation's prefix comes before it. */
const channelNames = {
  postgres: { invalidate: 'iora_invalidate', acknowledge: 'iora_acknowledge' },
  redis: { invalidate: 'invalidate', acknowledge: 'acknowledge' },
} as const;

/** Builds the carrier; the buses deliver to `channels`. */
export function createInvalidations(parts: InvalidationsParts): Invalidations {
  /** By the id of each of its messages. */
  const changes = new Map<string, Announced>();

  function drop({ tags, epochs }: Pick<Message, 'tags' | 'epochs'>): void {
    for (const cache of parts.caches) cache.invalidate(tags, epochs);
  }

  function onInvalidate(bus: BusName, payload: string): void {
    const message = parse(messageSchema, payload);
    if (message === undefined) {
      parts.log.warn({ bus }, 'an invalidation could not be read');
      return;
    }
    drop({ tags: message.tags, epochs: message.epochs ?? {} });
    // Whoever announced it needs no word of itself.
    if (parts.instanceId === null || changes.has(message.id)) return;
    const acknowledgement = JSON.stringify({ id: message.id, instance: parts.instanceId });
    send(bus, acknowledgement).catch((err: unknown) => {
      parts.log.warn({ err, bus }, 'an invalidation was applied but could not be acknowledged');
    });
  }

  async function send(bus: BusName, acknowledgement: string): Promise<void> {
    const channel = channelNames[bus].acknowledge;
    if (bus === 'redis') await parts.redis?.publish(channel, acknowledgement);
    else await parts.database.call((tx) => notify(tx, channel, acknowledgement));
  }

  function onAcknowledge(bus: BusName, payload: string): void {
    const { id, instance } = parse(acknowledgementSchema, payload) ?? { id: '', instance: '' };
    const change = changes.get(id);
    const mark = `${id} ${instance}`;
    if (!change?.live.includes(instance) || change.acknowledged.has(mark)) return;
    change.acknowledged.add(mark);
    // Heard before the commit was reported to us: it took no time that we could measure.
    parts.observe?.(bus, change.committedAtMs === null ? 0 : performance.now() - change.committedAtMs);
    change.heard();
  }

  /** The change is durable: it holds here, and is told on Redis, whose answer nobody waits for. */
  function apply(change: Announced): number {
    const committedAtMs = performance.now();
    change.committedAtMs = committedAtMs;
    for (const message of change.messages) {
      drop(message);
      parts.redis?.publish(channelNames.redis.invalidate, JSON.stringify(message)).catch((err: unknown) => {
        parts.log.warn({ err }, 'an invalidation went out by PostgreSQL alone');
      });
    }
    return committedAtMs;
  }

  function holdsOn({ live, messages, acknowledged }: Announced): number {
    const holds = (instance: string) =>
      instance === parts.instanceId || messages.every(({ id }) => acknowledged.has(`${id} ${instance}`));
    return live.filter(holds).length;
  }

  async function settle(change: Announced): Promise<Effect> {
    const deadline = AbortSignal.timeout(ACKNOWLEDGE_WAIT_MS);
    const committedAtMs = apply(change);
    const of = change.live.length;
    while (holdsOn(change) < of && !deadline.aborted) {
      await new Promise<void>((resolve) => {
        change.heard = resolve;
        deadline.addEventListener('abort', () => resolve(), { once: true });
      });
    }
    return { effectiveOn: holdsOn(change), of, ms: Math.ceil(performance.now() - committedAtMs) };
  }

  const handlers = (bus: BusName): Channels => ({
    [channelNames[bus].invalidate]: (payload) => onInvalidate(bus, payload),
    [channelNames[bus].acknowledge]: (payload) => onAcknowledge(bus, payload),
  });

  return {
    async announce(tx, { ownerIds, tags }) {
      const bumped = await sql<{ owner_id: string; epoch: string }>`
        select owner_id, epoch from bump_epochs(${ownerIds})`.execute(tx);
      const epochs = bumped.rows.map(({ owner_id, epoch }) => [owner_id, Number(epoch)] as const);
      const messages = toMessages(tags, epochs);
      const live = await parts.liveInstances(tx);
      for (const message of messages) await notify(tx, channelNames.postgres.invalidate, JSON.stringify(message));
      // Acknowledgements may arrive before the commit is reported to us, so they are collected from here on.
      const change: Announced = {
        messages,
        live,
        acknowledged: new Set(),
        committedAtMs: null,
        heard: () => undefined,
      };
      for (const { id } of messages) changes.set(id, change);
      setTimeout(() => {
        for (const { id } of messages) changes.delete(id);
      }, ACKNOWLEDGEMENTS_HEARD_MS).unref();
      return { apply: () => void apply(change), settle: () => settle(change) };
    },
    channels: { postgres: handlers('postgres'), redis: handlers('redis') },
  };
}

async function notify(tx: Transaction, channel: string, payload: string): Promise<void> {
  await sql`select pg_notify(${channel}, ${payload})`.execute(tx);
}
