import { z } from 'zod';

/** How a secret of a key is read and shown: by its prefix, never by itself. */

export const secretSchema = z.object({
  keyPrefix: z.string(),
  createdAt: z.iso.datetime(),
  lastUsedAt: z.iso.datetime().nullable(),
  usesSinceRotation: z
    .int()
    .nullable()
    .describe(
      'Uses since it was rotated out, so who still has it, and those of the minute before that other instances had not told yet; null for the current one',
    ),
  expiresAt: z.iso.datetime().nullable().describe('From then on it is refused, or has been'),
  state: z
    .enum(['current', 'overlap', 'ended', 'leaked'])
    .describe('overlap: rotated out, and works until expiresAt; leaked: found in public, and allowed nothing'),
});

export type SecretRecord = z.infer<typeof secretSchema>;

/** Secrets shown of a key: those that may work, and some before, to see when they were last used. */
export const SECRETS_SHOWN_MAX = 5;

/** What is read of a secret to show it. */
export const secretColumns = [
  'secret.key_prefix',
  'secret.created_at',
  'secret.last_used_at',
  'secret.usage_count',
  'secret.superseded_at',
  'secret.superseded_usage_count',
  'secret.expires_at',
  'secret.is_active',
  'secret.leaked_at',
] as const;

/** A row as PostgreSQL writes it in JSON. */
export interface SecretRow {
  readonly key_prefix: string;
  readonly created_at: string;
  readonly last_used_at: string | null;
  readonly usage_count: string | number;
  readonly superseded_at: string | null;
  readonly superseded_usage_count: string | number | null;
  readonly expires_at: string | null;
  readonly is_active: boolean;
  readonly leaked_at: string | null;
}

/** What of its family matters to a secret. */
export interface FamilyState {
  /** Revoked or expired. */
  readonly ended: boolean;
  readonly expiresAt: Date | null;
}

/** The public record of a secret, as of the moment given. */
export function toSecretRecord(row: SecretRow, family: FamilyState, nowMs: number): SecretRecord {
  const expiresAt = earliest([toDate(row.expires_at), family.expiresAt]);
  const ended = !row.is_active || family.ended || (expiresAt !== null && expiresAt.getTime() <= nowMs);
  const since = row.superseded_usage_count;
  return {
    keyPrefix: row.key_prefix,
    createdAt: new Date(row.created_at).toISOString(),
    lastUsedAt: toDate(row.last_used_at)?.toISOString() ?? null,
    usesSinceRotation: since === null ? null : Math.max(0, Number(row.usage_count) - Number(since)),
    expiresAt: expiresAt?.toISOString() ?? null,
    state: stateOf(row, ended),
  };
}

function stateOf(row: SecretRow, ended: boolean): SecretRecord['state'] {
  // Also of one that has ended: that it was found in public is what its owner has to know.
  if (row.leaked_at !== null) return 'leaked';
  if (ended) return 'ended';
  return row.superseded_at === null ? 'current' : 'overlap';
}

function toDate(value: string | null): Date | null {
  return value === null ? null : new Date(value);
}

/** The first of the moments; null stands for never. */
export function earliest(moments: readonly (Date | null)[]): Date | null {
  const known = moments.filter((moment) => moment !== null).map(Number);
  return known.length === 0 ? null : new Date(Math.min(...known));
}
