import { sql } from 'kysely';
import type { Log } from '../../platform/log.ts';
import type { Database } from '../../platform/postgres.ts';

/** Counts uses of keys in memory and writes them together, so that no call waits for a hot row. */
export interface KeyUse {
  touch(secretId: string): void;
  flush(): Promise<void>;
  close(): Promise<void>;
}

/** `last_used_at` of one key is written at most this often. A crash loses the counts since; they bill nobody. */
const FLUSH_INTERVAL_MS = 60_000;
/** Keys counted between two writes; more than that are written early. */
const KEYS_COUNTED_MAX = 10_000;

/** Keys of one transaction: their rows are locked until it ends, and a revocation of one of them must not wait for that. */
const KEYS_PER_WRITE = 100;

interface Use {
  lastUsedAtMs: number;
  count: number;
}

/** Starts the counter; its timer does not keep the process alive. */
export function createKeyUse(parts: { database: Database; log: Log; wallClockMs: () => number }): KeyUse {
  let uses = new Map<string, Use>();

  function add(secretId: string, { lastUsedAtMs, count }: Use): void {
    const use = uses.get(secretId);
    if (use === undefined) {
      if (uses.size < KEYS_COUNTED_MAX) uses.set(secretId, { lastUsedAtMs, count });
      return;
    }
    use.lastUsedAtMs = Math.max(use.lastUsedAtMs, lastUsedAtMs);
    use.count += count;
  }

  async function flush(): Promise<void> {
    const batch = [...uses];
    uses = new Map();
    while (batch.length > 0) {
      const part = batch.splice(0, KEYS_PER_WRITE);
      try {
        await write(part);
      } catch (error) {
        for (const [id, use] of [...part, ...batch]) add(id, use);
        throw error;
      }
    }
  }

  async function write(part: readonly (readonly [string, Use])[]): Promise<void> {
    const ids = part.map(([id]) => id);
    const moments = part.map(([, use]) => new Date(use.lastUsedAtMs));
    const counts = part.map(([, use]) => use.count);
    await parts.database.call((tx) =>
      sql`select record_key_use(${ids}::uuid[], ${moments}::timestamptz[], ${counts}::bigint[])`.execute(tx),
    );
  }

  function flushSoon(): void {
    flush().catch((err: unknown) => parts.log.warn({ err }, 'last use of keys could not be written'));
  }

  const timer = setInterval(flushSoon, FLUSH_INTERVAL_MS);
  timer.unref();
  return {
    touch(secretId) {
      const before = uses.size;
      add(secretId, { lastUsedAtMs: parts.wallClockMs(), count: 1 });
      if (uses.size > before && uses.size === KEYS_COUNTED_MAX) flushSoon();
    },
    flush,
    async close() {
      clearInterval(timer);
      await flush();
    },
  };
}
