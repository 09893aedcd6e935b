import { sql } from 'kysely';
import type { Job } from '../../kernel/job.ts';
import type { KeysParts } from './index.ts';

const SECOND_MS = 1_000;
const EVERY_MS = 30 * SECOND_MS;
/** Uses reach the table once a minute: after five times that nobody uses the secret, even if a write or two came to grief. */
const IDLE_AFTER_MS = 300 * SECOND_MS;
/** Overlaps ended in one round: as many as one message to the instances names keys. */
const BATCH = 100;

/** Ends the overlap of old secrets that were rotated out with `finishWhenIdle` and are not used any more. */
export function endIdleOverlaps(parts: Pick<KeysParts, 'invalidations'>): Job {
  return {
    name: 'keys.end_idle_overlaps',
    everyMs: EVERY_MS,
    async run({ tx, nowMs, afterCommit }) {
      const [now, idleSince] = [new Date(nowMs), new Date(nowMs - IDLE_AFTER_MS)];
      const { rows } = await sql<{ family_id: string; owner_id: string }>`
        select * from end_idle_overlaps(${now}, ${idleSince}, ${BATCH})`.execute(tx);
      if (rows.length > 0) {
        const announcement = await parts.invalidations.announce(tx, {
          ownerIds: [...new Set(rows.map((row) => row.owner_id))],
          tags: [...new Set(rows.map((row) => `family:${row.family_id}` as const))],
        });
        afterCommit(() => announcement.apply());
      }
      return { ended: rows.length };
    },
  };
}
