import type { Principal } from '../../kernel/context.ts';
import { unavailable } from '../../kernel/errors.ts';
import { BoundedMap } from '../../lib/bounded-map.ts';
import { DatabaseUnavailableError } from '../../platform/postgres.ts';

/**
 * Verified principals in memory: bounded, short-lived, negative answers included. A fill that started before a
 * revocation was heard, or whose row is older than it, is thrown away and repeated, so it can never bring a revoked
 * credential back.
 */

/** What an invalidation names: `family:ID`, `owner:ID`, `user:ID`, or `session:ID` with the provider's id of a session. */
export type Tag = `family:${string}` | `owner:${string}` | `user:${string}` | `session:${string}`;

export interface Loaded {
  readonly principal: Principal | null;
  /** Also on refused credentials, so that resuming a suspended owner clears its refusals. */
  readonly tags: readonly Tag[];
  /** Moment from which the credential is refused whatever the cache says. */
  readonly expiresAtMs: number | null;
  /** Epoch of the owner that the tags name, as read with the row; without it only the order of events protects. */
  readonly ownerEpoch?: number | null;
}

/** Owners' ids with the epoch that a change of their rights made. */
export type Epochs = Readonly<Record<string, number>>;

export interface PrincipalCacheOptions {
  /** Accepted credentials kept, and as many refused ones. */
  readonly entriesMax: number;
  /** How long an answer is used without asking again, as of now: shorter while invalidations may not be heard. */
  readonly freshMs: () => number;
  /** How long an answer is used while the database cannot be asked. */
  readonly outageGraceMs: number;
  readonly monotonicMs: () => number;
  readonly wallClockMs: () => number;
  /**
   * Through which credentials never seen before are looked up: anybody can make up as many as they like, and must not
   * keep those that are known from the database.
   */
  readonly strangers?: <T>(lookUp: () => Promise<T>) => Promise<T>;
  /** Told whenever rights may have changed, so that an answer given before may no longer be true. */
  readonly onChange?: () => void;
  readonly observe?: (result: 'hit' | 'miss' | 'grace') => void;
}

export interface PrincipalCache {
  /** The fresh answer for that credential, null when it is known to be refused, undefined when it has to be loaded. */
  get(credential: string): Principal | null | undefined;
  /** Loads, keeps and answers; concurrent calls for one credential share one load. Null: refused. */
  load(credential: string, loader: () => Promise<Loaded>): Promise<Principal | null>;
  /** Drops what is known under these tags; rows of these owners from before those epochs are not believed any more. */
  invalidate(tags: readonly Tag[], epochs?: Epochs): void;
  /** Believes nothing any more: after a time in which invalidations may have been missed. */
  clear(): void;
  size(): number;
}

interface Entry extends Loaded {
  readonly storedAtMs: number;
}

/** Repeats of a fill that keeps losing against invalidations of the same credential. */
const FILL_ATTEMPTS_MAX = 5;
/** Invalidations remembered for fills under way; a fill that outlasts them all is repeated too. */
const INVALIDATIONS_KEPT_MAX = 1_000;
/** Owners whose epochs are remembered, and for how long: longer than a transaction's snapshot lives. Forgetting one loses only the check against rows read from an older snapshot. */
const OWNERS_HEARD_MAX = 10_000;
const EPOCH_HEARD_MS = 60_000;
/** Pause between questions to a database that is away, while answers within the grace are given from memory. */
const OUTAGE_PROBE_MS = 1_000;

/** An empty cache. */
export function createPrincipalCache(options: PrincipalCacheOptions): PrincipalCache {
  // Apart and each with the bound, so that guessing credentials never pushes out those that are known.
  const accepted = new Map<string, Entry>();
  const refused = new Map<string, Entry>();
  const loading = new Map<string, Promise<Principal | null>>();
  const invalidations: { readonly sequence: number; readonly tags: ReadonlySet<Tag> | 'all' }[] = [];
  const epochsHeard = new BoundedMap<string, number>(OWNERS_HEARD_MAX);
  let sequence = 0;
  let outageProbeAtMs = Number.NEGATIVE_INFINITY;

  function find(credential: string): Entry | undefined {
    return accepted.get(credential) ?? refused.get(credential);
  }

  /** Storing anew moves the entry to the young end of its map, whose old end is dropped when it is full. */
  function store(credential: string, entry: Entry): void {
    accepted.delete(credential);
    refused.delete(credential);
    const entries = entry.principal === null ? refused : accepted;
    if (entries.size >= options.entriesMax) {
      for (const oldest of entries.keys()) {
        entries.delete(oldest);
        break;
      }
    }
    entries.set(credential, entry);
  }

  function current(entry: Entry): Principal | null {
    return entry.expiresAtMs !== null && entry.expiresAtMs <= options.wallClockMs() ? null : entry.principal;
  }

  function get(credential: string): Principal | null | undefined {
    const entry = find(credential);
    if (entry === undefined || options.monotonicMs() - entry.storedAtMs >= options.freshMs()) return undefined;
    options.observe?.('hit');
    return current(entry);
  }

  function remember(tags: ReadonlySet<Tag> | 'all'): void {
    sequence += 1;
    options.onChange?.();
    invalidations.push({ sequence, tags });
    if (invalidations.length > INVALIDATIONS_KEPT_MAX) invalidations.shift();
  }

  function overtaken(startedAt: number, tags: readonly Tag[]): boolean {
    if (startedAt === sequence) return false;
    if ((invalidations[0]?.sequence ?? 0) > startedAt + 1) return true;
    return invalidations.some(
      (item) =>
        item.sequence > startedAt &&
        (item.tags === 'all' || tags.some((tag) => item.tags !== 'all' && item.tags.has(tag))),
    );
  }

  /** Whether the row was read from a snapshot in which a change already heard of had not happened, as on a standby. */
  function outdated({ tags, ownerEpoch }: Loaded): boolean {
    if (ownerEpoch === undefined || ownerEpoch === null) return false;
    const now = options.monotonicMs();
    return tags.some((tag) => ownerEpoch < (epochsHeard.get(tag, now) ?? 0));
  }

  async function fill(credential: string, loader: () => Promise<Loaded>, settle: Settle): Promise<void> {
    for (let attempt = 1; attempt <= FILL_ATTEMPTS_MAX; attempt += 1) {
      const startedAt = sequence;
      const storedAtMs = options.monotonicMs();
      const loaded = await loader();
      outageProbeAtMs = Number.NEGATIVE_INFINITY;
      if (overtaken(startedAt, loaded.tags) || outdated(loaded)) continue;
      const entry = { ...loaded, storedAtMs };
      store(credential, entry);
      return settle(current(entry));
    }
    throw unavailable('The credential is being changed at the moment.');
  }

  /** The last answer for a credential while the database is away, as long as it is young enough. */
  function withinGrace(credential: string): Entry | undefined {
    const entry = find(credential);
    return entry !== undefined && options.monotonicMs() - entry.storedAtMs < options.outageGraceMs ? entry : undefined;
  }

  async function loadOrGrace(credential: string, loader: () => Promise<Loaded>, settle: Settle): Promise<void> {
    const graced = withinGrace(credential);
    if (graced !== undefined && options.monotonicMs() < outageProbeAtMs) {
      options.observe?.('grace');
      return settle(current(graced));
    }
    try {
      options.observe?.('miss');
      await fill(credential, loader, settle);
    } catch (error) {
      if (!(error instanceof DatabaseUnavailableError)) throw error;
      outageProbeAtMs = options.monotonicMs() + OUTAGE_PROBE_MS;
      // Asked again, since an invalidation may have removed it while the database was being waited for.
      const entry = withinGrace(credential);
      if (entry === undefined) throw error;
      options.observe?.('grace');
      settle(current(entry));
    }
  }

  return {
    get,
    load(credential, loader) {
      const running = loading.get(credential);
      if (running !== undefined) return running;
      const { promise, resolve, reject } = Promise.withResolvers<Principal | null>();
      loading.set(credential, promise);
      // Called in the very turn that found the answer still true: an invalidation a turn later would otherwise find
      // this load under way and yet not stop its answer.
      const settle: Settle = (answer) => {
        loading.delete(credential);
        resolve(answer);
      };
      const { strangers } = options;
      const lookUp = strangers === undefined || find(credential) !== undefined ? loader : () => strangers(loader);
      loadOrGrace(credential, lookUp, settle).catch((error: unknown) => {
        loading.delete(credential);
        reject(error);
      });
      return promise;
    },
    invalidate(tags, epochs = {}) {
      const named = new Set(tags);
      remember(named);
      for (const [ownerId, epoch] of Object.entries(epochs)) {
        const owner: Tag = `owner:${ownerId}`;
        const now = options.monotonicMs();
        epochsHeard.set(owner, Math.max(epochsHeard.get(owner, now) ?? 0, epoch), now + EPOCH_HEARD_MS);
      }
      for (const entries of [accepted, refused]) {
        for (const [credential, entry] of entries) {
          if (entry.tags.some((tag) => named.has(tag))) entries.delete(credential);
        }
      }
    },
    clear() {
      remember('all');
      // Not believed any more, but no strangers either: all of them come back at once.
      for (const [credential, entry] of accepted) {
        accepted.set(credential, { ...entry, storedAtMs: Number.NEGATIVE_INFINITY });
      }
      refused.clear();
      // The database may be another one now, restored from before: its epochs are the true ones.
      epochsHeard.clear();
    },
    size: () => accepted.size + refused.size,
  };
}

type Settle = (answer: Principal | null) => void;
