import { randomUUID } from 'node:crypto';
import { sql } from 'kysely';
import { z } from 'zod';
import type { Log } from '../../platform/log.ts';
import type { Database, Transaction } from '../../platform/postgres.ts';
import type { PrincipalCache, Tag } from './principal-cache.ts';

/**
 * Carries "what you know of this credential is no longer true" to every instance. The message is part of the change's
 * transaction (NOTIFY is sent at commit, never for a rollback); every instance drops its entries and acknowledges.
 */

const INVALIDATE_CHANNEL = 'iora_invalidate';
const ACKNOWLEDGE_CHANNEL = 'iora_acknowledge';

/** Longest wait for acknowledgements; after it the answer says on how many instances the change is known to hold. */
const ACKNOWLEDGE_WAIT_MS = 2_000;

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

export interface Invalidations {
  /**
   * Bumps the epochs of the owners whose rights change, and sends tags and epochs to all instances when the transaction
   * commits.
   */
  announce(tx: Transaction, change: Change): Promise<Announcement>;
  /** Handlers of the two channels. */
  readonly channels: Readonly<Record<string, (payload: string) => void>>;
}

export interface InvalidationsParts {
  readonly database: Database;
  readonly caches: readonly PrincipalCache[];
  /** This process's instance id; null for one that serves nobody, like a command. */
  readonly instanceId: string | null;
  /** Asked in the change's own transaction, so that nothing can fail any more once the change is durable. */
  readonly liveInstances: (tx: Transaction) => Promise<readonly string[]>;
  readonly log: Log;
}

const tagSchema = z.templateLiteral([z.enum(['family', 'owner', 'user', 'session']), ':', z.string().max(255)]);
const messageSchema = z.object({ id: z.uuid(), tags: z.array(tagSchema).max(100) });
const acknowledgementSchema = z.object({ id: z.uuid(), instance: z.uuid() });

interface Waiter {
  readonly acknowledged: Set<string>;
  readonly heard: () => void;
}

/** Builds the carrier; the bus delivers to `channels`. */
export function createInvalidations(parts: InvalidationsParts): Invalidations {
  const waiters = new Map<string, Waiter>();

  function apply(tags: readonly Tag[]): void {
    for (const cache of parts.caches) cache.invalidate(tags);
  }

  function onInvalidate(payload: string): void {
    const message = parse(messageSchema, payload);
    if (message === undefined) {
      parts.log.warn({}, 'an invalidation could not be read');
      return;
    }
    apply(message.tags);
    if (parts.instanceId === null) return;
    const acknowledgement = JSON.stringify({ id: message.id, instance: parts.instanceId });
    parts.database
      .call((tx) => notify(tx, ACKNOWLEDGE_CHANNEL, acknowledgement))
      .catch((err: unknown) => {
        parts.log.warn({ err }, 'an invalidation was applied but could not be acknowledged');
      });
  }

  function onAcknowledge(payload: string): void {
    const acknowledgement = parse(acknowledgementSchema, payload);
    const waiter = acknowledgement && waiters.get(acknowledgement.id);
    if (waiter === undefined) return;
    waiter.acknowledged.add(acknowledgement?.instance ?? '');
    waiter.heard();
  }

  async function settle(id: string, tags: readonly Tag[], live: readonly string[]): Promise<Effect> {
    const startedAt = performance.now();
    const deadline = AbortSignal.timeout(ACKNOWLEDGE_WAIT_MS);
    apply(tags);
    const acknowledged = waiters.get(id)?.acknowledged ?? new Set<string>();
    if (parts.instanceId !== null) acknowledged.add(parts.instanceId);
    const holds = () => live.filter((instance) => acknowledged.has(instance)).length;
    while (holds() < live.length && !deadline.aborted) await nextAcknowledgement(id, deadline);
    waiters.delete(id);
    return { effectiveOn: holds(), of: live.length, ms: Math.ceil(performance.now() - startedAt) };
  }

  function nextAcknowledgement(id: string, deadline: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const waiter = waiters.get(id);
      if (waiter !== undefined) waiters.set(id, { ...waiter, heard: resolve });
      deadline.addEventListener('abort', () => resolve(), { once: true });
    });
  }

  return {
    async announce(tx, { ownerIds, tags }) {
      const id = randomUUID();
      await sql`select from bump_epochs(${ownerIds})`.execute(tx);
      const live = await parts.liveInstances(tx);
      await notify(tx, INVALIDATE_CHANNEL, JSON.stringify({ id, tags }));
      // Acknowledgements may arrive before the commit is reported to us, so they are collected from here on.
      waiters.set(id, { acknowledged: new Set(), heard: () => undefined });
      setTimeout(() => waiters.delete(id), 10 * ACKNOWLEDGE_WAIT_MS).unref();
      return { apply: () => apply(tags), settle: () => settle(id, tags, live) };
    },
    channels: { [INVALIDATE_CHANNEL]: onInvalidate, [ACKNOWLEDGE_CHANNEL]: onAcknowledge },
  };
}

async function notify(tx: Transaction, channel: string, payload: string): Promise<void> {
  await sql`select pg_notify(${channel}, ${payload})`.execute(tx);
}

/** The message, or undefined when it is not one of ours: anybody who may connect may send on a channel. */
function parse<Schema extends z.ZodType>(schema: Schema, payload: string): z.infer<Schema> | undefined {
  try {
    return schema.parse(JSON.parse(payload));
  } catch {
    return undefined;
  }
}
