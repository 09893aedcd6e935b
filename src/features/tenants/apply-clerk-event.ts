import { randomUUID } from 'node:crypto';
import { type RawBuilder, sql } from 'kysely';
import { blindIndex, type EnvelopeKey, seal } from '../../lib/envelope.ts';
import type { Transaction } from '../../platform/postgres.ts';
import type { Tag } from '../keys/index.ts';
import type { ClerkEvent, ClerkMembership, ClerkOrganization, ClerkUser } from './clerk-events.ts';

/** Whose rights a message changed, for those who remember them. */
export interface RightsChange {
  readonly ownerIds: readonly string[];
  readonly tags: readonly Tag[];
}

export interface ApplyParts {
  readonly issuer: string;
  readonly dataKeys: readonly [EnvelopeKey, ...EnvelopeKey[]];
}

/** Stands for when something was said where the message does not tell: it is then older than one that does. */
const UNKNOWN_MOMENT = new Date(0);

const NOBODY: RightsChange = { ownerIds: [], tags: [] };

/**
 * Does in the transaction what the message says; answers null where nobody's rights changed. `sentAt` stands for the moment of
 * a deletion whose message does not name it.
 */
export async function applyClerkEvent(
  parts: ApplyParts,
  tx: Transaction,
  event: ClerkEvent,
  sentAt: Date,
): Promise<RightsChange | null> {
  switch (event.type) {
    case 'user.created':
    case 'user.updated':
      return updatePerson(parts, tx, event.data, event.timestamp ?? UNKNOWN_MOMENT);
    case 'user.deleted': {
      const endedAt = event.timestamp ?? sentAt;
      return ofPerson(
        await answerOf<string>(tx, sql`delete_person(${parts.issuer}, ${event.data.id}, ${newId('user')}, ${endedAt})`),
      );
    }
    case 'organization.created':
    case 'organization.updated':
      return ofRaised((await upsertOrganization(parts, tx, event.data)).raised_user_id);
    case 'organization.deleted': {
      const endedAt = event.timestamp ?? sentAt;
      const id = await answerOf<string>(
        tx,
        sql`delete_organization(${parts.issuer}, ${event.data.id}, ${newId('org')}, ${endedAt})`,
      );
      return { ownerIds: [id], tags: [`owner:${id}`] };
    }
    case 'organizationMembership.created':
    case 'organizationMembership.updated':
      return upsertMembership(parts, tx, event.data);
    case 'organizationMembership.deleted': {
      const { externalId, organizationId, subject } = event.data;
      const endedAt = event.timestamp ?? sentAt;
      const userId = await ensurePerson(parts, tx, subject);
      const ended = await answerOf<boolean>(
        tx,
        sql`delete_membership(${parts.issuer}, ${externalId}, ${organizationId}, ${subject}, ${userId}, ${endedAt})`,
      );
      return ended ? ofPerson(userId) : null;
    }
    case 'session.revoked':
    case 'session.ended':
    case 'session.removed': {
      const { id, user_id: subject } = event.data;
      const revoked = event.type === 'session.revoked';
      const userId = await answerOf<string | null>(
        tx,
        sql`revoke_session(${parts.issuer}, ${id}, ${subject}, ${event.timestamp ?? sentAt}, ${revoked})`,
      );
      return { ownerIds: userId === null ? [] : [userId], tags: [`session:${id}`] };
    }
  }
}

async function updatePerson(
  parts: ApplyParts,
  tx: Transaction,
  user: ClerkUser,
  saidAt: Date,
): Promise<RightsChange | null> {
  // What is sealed is bound to the id of its row, so the row comes first.
  const id = await ensurePerson(parts, tx, user.subject);
  const [dataKey] = parts.dataKeys;
  const sealed = (column: string, text: string | null) =>
    text === null ? null : seal(text, dataKey, { table: 'users', column, row: id });
  const changed = await answerOf<boolean>(
    tx,
    sql`update_person(${id}, ${user.updatedAt}, ${saidAt}, ${user.active}, ${sealed('email', user.email)},
      ${user.email === null ? null : blindIndex(user.email, dataKey)}, ${sealed('first_name', user.firstName)},
      ${sealed('last_name', user.lastName)}, ${dataKey.version})`,
  );
  return changed ? ofPerson(id) : null;
}

async function upsertMembership(
  parts: ApplyParts,
  tx: Transaction,
  membership: ClerkMembership,
): Promise<RightsChange | null> {
  const { externalId, subject, role, joinedAt, updatedAt } = membership;
  const userId = await ensurePerson(parts, tx, subject);
  const organization = await upsertOrganization(parts, tx, membership.organization);
  const changed = await answerOf<boolean>(
    tx,
    sql`upsert_membership(${parts.issuer}, ${externalId}, ${organization.org_id}, ${userId}, ${role}, ${joinedAt}, ${updatedAt})`,
  );
  const { ownerIds, tags } = ofRaised(organization.raised_user_id) ?? NOBODY;
  const ofMember = ofPerson(changed ? userId : null) ?? NOBODY;
  const all = { ownerIds: [...ownerIds, ...ofMember.ownerIds], tags: [...tags, ...ofMember.tags] };
  return all.tags.length === 0 ? null : all;
}

function ensurePerson(parts: ApplyParts, tx: Transaction, subject: string): Promise<string> {
  return answerOf<string>(tx, sql`ensure_person(${parts.issuer}, ${subject}, ${newId('user')})`);
}

interface UpsertedOrganization {
  readonly org_id: string;
  readonly raised_user_id: string | null;
}

async function upsertOrganization(
  parts: ApplyParts,
  tx: Transaction,
  organization: ClerkOrganization,
): Promise<UpsertedOrganization> {
  const { externalId, name, slug, createdBy, updatedAt } = organization;
  const { rows } = await sql<UpsertedOrganization>`select * from upsert_organization(
    ${parts.issuer}, ${externalId}, ${newId('org')}, ${name}, ${slug}, ${createdBy}, ${updatedAt})`.execute(tx);
  const [row] = rows;
  if (row === undefined) throw new Error('upsert_organization answered nothing');
  return row;
}

/** All that is remembered of a person: their sessions, their own keys, and the keys they made in organizations. */
function ofPerson(userId: string | null): RightsChange | null {
  return userId === null ? null : { ownerIds: [userId], tags: [`user:${userId}`, `owner:${userId}`] };
}

/**
 * Somebody who rose because of what was learnt of their organization. Their epoch stays: they lost nothing, and their row would be
 * locked after the organization's, against the order of everybody else.
 */
function ofRaised(userId: string | null): RightsChange | null {
  const change = ofPerson(userId);
  return change === null ? null : { ownerIds: [], tags: change.tags };
}

async function answerOf<Value>(tx: Transaction, call: RawBuilder<unknown>): Promise<Value> {
  const { rows } = await sql<{ value: Value }>`select ${call} as value`.execute(tx);
  return (rows[0] as { value: Value }).value;
}

function newId(kind: 'user' | 'org'): string {
  return `${kind}_${randomUUID().replaceAll('-', '')}`;
}
