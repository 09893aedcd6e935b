import type { Feature } from '../../kernel/operation.ts';
import type { EnvelopeKey } from '../../lib/envelope.ts';
import type { Database } from '../../platform/postgres.ts';
import type { Invalidations } from '../keys/index.ts';
import { clerkWebhook } from './clerk-webhook.ts';
import { forgetMessages } from './forget-messages.ts';

export interface ClerkSyncParts {
  readonly database: Database;
  /** The first seals names and emails. */
  readonly dataKeys: readonly [EnvelopeKey, ...EnvelopeKey[]];
  readonly invalidations: Invalidations;
  /** Says whose people the messages speak of. */
  readonly issuer: string | null;
  /** Without it Clerk's messages are not taken. */
  readonly webhookSecret: string | undefined;
}

/** What keeps the people and organizations here as Clerk knows them, between their calls. */
export function createClerkSync({ issuer, webhookSecret, ...parts }: ClerkSyncParts): Feature {
  // The configuration refuses the one without the other.
  const takesMessages = issuer !== null && webhookSecret !== undefined;
  return {
    name: 'clerk',
    operations: [],
    endpoints: takesMessages ? [clerkWebhook({ ...parts, issuer, webhookSecret })] : [],
    jobs: [forgetMessages],
  };
}
