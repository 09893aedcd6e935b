import { verifyWebhook } from '@clerk/backend/webhooks';
import { sql } from 'kysely';
import { Webhook } from 'standardwebhooks';
import type { Endpoint, EndpointRequest } from '../../kernel/endpoint.ts';
import { AppError } from '../../kernel/errors.ts';
import type { Database, Transaction } from '../../platform/postgres.ts';
import type { Invalidations } from '../keys/index.ts';
import { type ApplyParts, applyClerkEvent } from './apply-clerk-event.ts';
import { type ClerkEvent, clerkEventSchema, isTaken } from './clerk-events.ts';

export interface ClerkWebhookParts extends ApplyParts {
  readonly database: Database;
  readonly invalidations: Invalidations;
  readonly webhookSecret: string;
}

/** What the answer says: the message took effect, it had before, or it is of a kind that is not used here. */
type Outcome = 'applied' | 'duplicate' | 'ignored';

/** Longest id of a message that is kept. */
const MESSAGE_ID_LENGTH_MAX = 255;
const SECOND_MS = 1_000;

/**
 * `POST /webhooks/clerk`: what Clerk tells of people, organizations, memberships and sessions. The answer is given once every
 * live instance has heard whose rights changed, or two seconds have passed. Everything but success makes Clerk send again.
 */
export function clerkWebhook(parts: ClerkWebhookParts): Endpoint {
  return {
    method: 'POST',
    path: '/webhooks/clerk',
    summary: 'Messages of Clerk, by signature',
    async answer(request) {
      const message = await verifiedMessage(request, parts.webhookSecret);
      const outcome = await takeMessage(parts, message);
      return { status: 200, contentType: 'application/json; charset=utf-8', body: JSON.stringify({ outcome }) };
    },
  };
}

/** A message whose signature and age are right; what it says is still to be read. */
interface VerifiedMessage {
  readonly id: string;
  readonly sentAt: Date;
  readonly payload: { readonly type?: unknown };
}

/** Throws `unauthenticated` for whatever Clerk did not sign or signed too long ago, `malformed_request` for what is no JSON. */
async function verifiedMessage(request: EndpointRequest, signingSecret: string): Promise<VerifiedMessage> {
  const headers = signatureHeaders(request);
  const body = await request.body();
  const asRequest = new Request('http://localhost/webhooks/clerk', {
    method: 'POST',
    headers,
    body: Uint8Array.from(body),
  });
  const message = { id: headers['svix-id'], sentAt: new Date(Number(headers['svix-timestamp']) * SECOND_MS) };
  if (message.id.length > MESSAGE_ID_LENGTH_MAX) throw notFromClerk();
  try {
    return { ...message, payload: await verifyWebhook(asRequest, { signingSecret }) };
  } catch {
    // One error stands for everything there, so the signature is asked for alone.
    assertSigned(headers, body, signingSecret);
    throw new AppError('malformed_request', 'The body of the message is no JSON object.');
  }
}

interface SignatureHeaders extends Record<string, string> {
  readonly 'svix-id': string;
  readonly 'svix-timestamp': string;
  readonly 'svix-signature': string;
}

function signatureHeaders({ headers }: EndpointRequest): SignatureHeaders {
  const { 'svix-id': id, 'svix-timestamp': timestamp, 'svix-signature': signature } = headers;
  // The library reads the digits a timestamp begins with; here it is digits and nothing else.
  if (typeof id !== 'string' || typeof signature !== 'string' || !/^\d{1,12}$/.test(String(timestamp))) {
    throw notFromClerk();
  }
  return { 'svix-id': id, 'svix-timestamp': String(timestamp), 'svix-signature': signature };
}

function assertSigned(headers: SignatureHeaders, body: Buffer, signingSecret: string): void {
  try {
    new Webhook(signingSecret).verify(
      body.toString(),
      {
        'webhook-id': headers['svix-id'],
        'webhook-timestamp': headers['svix-timestamp'],
        'webhook-signature': headers['svix-signature'],
      },
      { jsonParse: false },
    );
  } catch {
    throw notFromClerk();
  }
}

/** The same for all, so that whoever tries learns nothing. */
function notFromClerk(): AppError {
  return new AppError(
    'unauthenticated',
    'The signature of the message is missing, wrong or more than five minutes away: check CLERK_WEBHOOK_SECRET and the clock.',
  );
}

async function takeMessage(parts: ClerkWebhookParts, { id, sentAt, payload }: VerifiedMessage): Promise<Outcome> {
  if (!isTaken(payload.type)) return 'ignored';
  const read = clerkEventSchema.safeParse(payload);
  if (!read.success) {
    const fields = read.error.issues.map(({ path }) => path.join('.'));
    throw new AppError('invalid_input', `The message is not as Clerk documents it: ${fields.join(', ')}.`);
  }
  const event = read.data;
  // The note that it came, what it does and telling others are one transaction: nothing is ever half done.
  const { outcome, announcement } = await parts.database.call((tx) => takeOnce(parts, tx, { id, sentAt, event }));
  await announcement?.settle();
  return outcome;
}

async function takeOnce(
  parts: ClerkWebhookParts,
  tx: Transaction,
  { id, sentAt, event }: { id: string; sentAt: Date; event: ClerkEvent },
) {
  const { rows } = await sql<{ new: boolean }>`select receive_webhook('clerk', ${id}, ${event.type}) as new`.execute(
    tx,
  );
  if (rows[0]?.new !== true) return { outcome: 'duplicate', announcement: null } as const;
  const change = await applyClerkEvent(parts, tx, event, sentAt);
  const announcement = change === null ? null : await parts.invalidations.announce(tx, change);
  return { outcome: 'applied', announcement } as const;
}
