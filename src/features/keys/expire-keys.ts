import { sql } from 'kysely';
import type { Job } from '../../kernel/job.ts';
import type { KeysParts } from './index.ts';

/** What a round leaves is for the next: 6,000 keys of a kind in an hour, also where many were made to expire together. */
const EVERY_MS = 60_000;
/**
 * Keys of one kind in one round, whose rows stay locked until it ends. A full round of every kind took 0.14 s on two cores; one
 * of 500 took 0.6 s there, and up to 1.9 s beside other work.
 */
const BATCH = 100;

interface Happened {
  readonly event: 'expiring' | 'expired' | 'tombstoned' | 'thinned';
  readonly family_id: string;
  readonly owner_id: string;
  readonly expires_at: Date | null;
  readonly days: number | null;
}

const texts: Readonly<Record<Happened['event'], string>> = {
  expiring: 'an API key expires soon',
  expired: 'an API key has expired',
  tombstoned: 'an API key that ended long ago was cleared',
  thinned: 'secrets of an API key that ended long ago were deleted',
};

/** Tells owners of a coming expiry, marks what has expired, and clears keys and secrets that ended long ago. */
export function expireKeys(parts: Pick<KeysParts, 'log'>): Job {
  return {
    name: 'keys.expire',
    everyMs: EVERY_MS,
    async run({ tx, nowMs, afterCommit }) {
      const { rows } = await sql<Happened>`select * from expire_keys(${new Date(nowMs)}, ${BATCH})`.execute(tx);
      afterCommit(() => {
        for (const { event, family_id: keyId, owner_id: ownerId, expires_at: expiresAt, days } of rows) {
          parts.log.info({ keyId, ownerId, expiresAt, ...(days === null ? {} : { days }) }, texts[event]);
        }
      });
      const count = (wanted: Happened['event']) => rows.filter(({ event }) => event === wanted).length;
      return {
        expiring: count('expiring'),
        expired: count('expired'),
        tombstoned: count('tombstoned'),
        thinned: count('thinned'),
      };
    },
  };
}
