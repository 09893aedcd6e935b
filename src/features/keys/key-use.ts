import { sql } from 'kysely';
import type { KeyIdentity } from '../../kernel/context.ts';
import type { Log } from '../../platform/log.ts';
import type { Database, Transaction } from '../../platform/postgres.ts';

/** Counts uses of keys in memory and writes them together, so that no call waits for a hot row. */
export interface KeyUse {
  touch(key: Pick<KeyIdentity, 'id' | 'secretId'>): void;
  /** Writes what was counted in this process; of one key only where its id is given. */
  flush(familyId?: string): Promise<void>;
  /**
   * Writes what was counted of that key in a transaction that is open already, where a second connection must not be waited
   * for. What a rollback takes back is lost, as in a crash.
   */
  record(tx: Transaction, familyId: string): Promise<void>;
  close(): Promise<void>;
}

/** `last_used_at` of one key is written at most this often. A crash loses the counts since; they bill nobody. */
const FLUSH_INTERVAL_MS = 60_000;
/** Keys counted between two writes; more than that are written early. */
const KEYS_COUNTED_MAX = 10_000;

/** Keys of one transaction: their rows are locked until it ends, and a revocation of one of them must not wait for that. */
const KEYS_PER_WRITE = 100;

interface Use {
  readonly familyId: string;
  lastUsedAtMs: number;
  count: number;
}

type Counted = readonly [secretId: string, use: Use];

/** Starts the counter; its timer does not keep the process alive. */
export function createKeyUse(parts: { database: Database; log: Log; wallClockMs: () => number }): KeyUse {
  let uses = new Map<string, Use>();

  function add(secretId: string, used: Use): void {
    const use = uses.get(secretId);
    if (use === undefined) {
      if (uses.size < KEYS_COUNTED_MAX) uses.set(secretId, { ...used });
      return;
    }
    use.lastUsedAtMs = Math.max(use.lastUsedAtMs, used.lastUsedAtMs);
    use.count += used.count;
  }

  /** Takes the counts out, of all keys or of one. */
  function take(familyId?: string): Counted[] {
    if (familyId === undefined) {
      const all = [...uses];
      uses = new Map();
      return all;
    }
    const taken = [...uses].filter(([, use]) => use.familyId === familyId);
    for (const [secretId] of taken) uses.delete(secretId);
    return taken;
  }

  /** Writes in parts by `write`; what could not be written is counted again. */
  async function writeAll(batch: Counted[], write: (part: readonly Counted[]) => Promise<unknown>): Promise<void> {
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

  const flush = (familyId?: string) =>
    writeAll(take(familyId), (part) => parts.database.call((tx) => writeUses(tx, part)));

  function flushSoon(): void {
    flush().catch((err: unknown) => parts.log.warn({ err }, 'last use of keys could not be written'));
  }

  const timer = setInterval(flushSoon, FLUSH_INTERVAL_MS);
  timer.unref();
  return {
    touch({ id, secretId }) {
      const before = uses.size;
      add(secretId, { familyId: id, lastUsedAtMs: parts.wallClockMs(), count: 1 });
      if (uses.size > before && uses.size === KEYS_COUNTED_MAX) flushSoon();
    },
    flush,
    record: (tx, familyId) => writeAll(take(familyId), (part) => writeUses(tx, part)),
    async close() {
      clearInterval(timer);
      await flush();
    },
  };
}

async function writeUses(tx: Transaction, part: readonly Counted[]): Promise<void> {
  const ids = part.map(([id]) => id);
  const moments = part.map(([, use]) => new Date(use.lastUsedAtMs));
  const counts = part.map(([, use]) => use.count);
  await sql`select record_key_use(${ids}::uuid[], ${moments}::timestamptz[], ${counts}::bigint[])`.execute(tx);
}
