import { z } from 'zod';
import { roleNamed } from './token-claims.ts';

/** Clerk's messages as far as they are used here: lenient about everything else, which Clerk adds to at any time. */

/** Bounds of the columns that keep them, and nothing in them that could not be kept or would be read as two ids. */
const idSchema = z
  .string()
  .max(255)
  .regex(/^[!-~]+$/);
/** Until the year 9999, which every date here can hold. */
const momentSchema = z
  .number()
  .min(0)
  .max(253_402_300_799_999)
  .transform((ms) => new Date(ms));
/** In characters; what is longer is cut, for a name must not stop a ban. */
const NAME_LENGTH_MAX = 255;
const EMAIL_LENGTH_MAX = 254;
/** As the database takes slugs; another one is no slug here. */
const SLUG = /^[a-z0-9][a-z0-9_-]{0,62}$/;

const nameSchema = z
  .string()
  .nullish()
  .transform((name) => {
    // PostgreSQL keeps no NUL in a text.
    const kept = name?.replaceAll('\0', '').trim().slice(0, NAME_LENGTH_MAX) ?? '';
    return kept === '' ? null : kept;
  });

const userSchema = z
  .object({
    id: idSchema,
    first_name: nameSchema,
    last_name: nameSchema,
    primary_email_address_id: z.string().nullish(),
    email_addresses: z.array(
      z.object({
        id: z.string(),
        email_address: z.string(),
        verification: z.object({ status: z.string() }).nullish(),
      }),
    ),
    banned: z.boolean(),
    deprovisioned: z.boolean().default(false),
    updated_at: momentSchema,
  })
  .transform((user) => ({
    subject: user.id,
    firstName: user.first_name,
    lastName: user.last_name,
    email: verifiedEmail(user.email_addresses.find(({ id }) => id === user.primary_email_address_id)),
    // A locked person cannot sign in anew, but what they are signed in with goes on.
    active: !user.banned && !user.deprovisioned,
    updatedAt: user.updated_at,
  }));

const organizationSchema = z
  .object({
    id: idSchema,
    name: nameSchema,
    slug: z.string().nullish(),
    created_by: idSchema.nullish(),
    updated_at: momentSchema,
  })
  .transform((organization) => ({
    externalId: organization.id,
    name: organization.name ?? organization.id,
    slug: organization.slug != null && SLUG.test(organization.slug) ? organization.slug : null,
    createdBy: organization.created_by ?? null,
    updatedAt: organization.updated_at,
  }));

const personOfMembership = z.object({ user_id: idSchema });

const membershipSchema = z
  .object({
    id: idSchema,
    role: z.string(),
    organization: organizationSchema,
    public_user_data: personOfMembership,
    created_at: momentSchema,
    updated_at: momentSchema,
  })
  .transform((membership) => ({
    externalId: membership.id,
    subject: membership.public_user_data.user_id,
    organization: membership.organization,
    role: roleNamed(membership.role),
    joinedAt: membership.created_at,
    updatedAt: membership.updated_at,
  }));

const endedMembershipSchema = z
  .object({ id: idSchema, organization: z.object({ id: idSchema }), public_user_data: personOfMembership })
  .transform((membership) => ({
    externalId: membership.id,
    subject: membership.public_user_data.user_id,
    organizationId: membership.organization.id,
  }));

const deletedSchema = z.object({ id: idSchema });
const sessionSchema = z.object({ id: idSchema, user_id: idSchema });

/** Every message that is taken, by what has to be done for it. `timestamp`: when it happened, which older messages lack. */
export const clerkEventSchema = z.discriminatedUnion('type', [
  z.object({
    type: z.enum(['user.created', 'user.updated']),
    data: userSchema,
    timestamp: momentSchema.optional(),
  }),
  z.object({ type: z.literal('user.deleted'), data: deletedSchema, timestamp: momentSchema.optional() }),
  z.object({ type: z.enum(['organization.created', 'organization.updated']), data: organizationSchema }),
  z.object({ type: z.literal('organization.deleted'), data: deletedSchema, timestamp: momentSchema.optional() }),
  z.object({
    type: z.enum(['organizationMembership.created', 'organizationMembership.updated']),
    data: membershipSchema,
  }),
  z.object({
    type: z.literal('organizationMembership.deleted'),
    data: endedMembershipSchema,
    timestamp: momentSchema.optional(),
  }),
  z.object({
    type: z.enum(['session.revoked', 'session.ended', 'session.removed']),
    data: sessionSchema,
    timestamp: momentSchema.optional(),
  }),
]);

export type ClerkEvent = z.infer<typeof clerkEventSchema>;
export type ClerkUser = z.infer<typeof userSchema>;
export type ClerkMembership = z.infer<typeof membershipSchema>;
export type ClerkOrganization = z.infer<typeof organizationSchema>;

const types: ReadonlySet<unknown> = new Set(
  clerkEventSchema.options.flatMap(({ shape: { type } }) => (type instanceof z.ZodEnum ? type.options : [type.value])),
);

/** Whether messages of that type are taken; Clerk has many more. */
export function isTaken(type: unknown): boolean {
  return types.has(type);
}

function verifiedEmail(
  address: { email_address: string; verification?: { status: string } | null | undefined } | undefined,
): string | null {
  if (address?.verification?.status !== 'verified') return null;
  const email = address.email_address.trim().toLowerCase();
  return email === '' || email.length > EMAIL_LENGTH_MAX ? null : email;
}
