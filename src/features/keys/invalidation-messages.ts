import { randomUUID } from 'node:crypto';
import { z } from 'zod';
import type { Epochs, Tag } from './principal-cache.ts';

/** What instances say to each other about changes of rights, and how that is read. */

/** PostgreSQL takes 8,000 bytes in one NOTIFY; a tag has at most 263 characters, an owner's id 40. */
const ITEMS_PER_MESSAGE_MAX = 20;

const tagSchema = z.templateLiteral([z.enum(['family', 'owner', 'user', 'session']), ':', z.string().max(255)]);
const epochsSchema = z
  .record(z.string().max(255), z.int().nonnegative())
  .refine((epochs) => Object.keys(epochs).length <= ITEMS_PER_MESSAGE_MAX);
// Releases before this one send a hundred tags and no epochs.
export const messageSchema = z.object({
  id: z.uuid(),
  tags: z.array(tagSchema).max(100),
  epochs: epochsSchema.optional(),
});
export const acknowledgementSchema = z.object({ id: z.uuid(), instance: z.uuid() });

export interface Message {
  readonly id: string;
  readonly tags: readonly Tag[];
  readonly epochs: Epochs;
}

/** As many messages as it takes, at least one. */
export function toMessages(tags: readonly Tag[], epochs: readonly (readonly [string, number])[]): Message[] {
  const messages: Message[] = [];
  for (let from = 0; from === 0 || from < Math.max(tags.length, epochs.length); from += ITEMS_PER_MESSAGE_MAX) {
    const to = from + ITEMS_PER_MESSAGE_MAX;
    messages.push({
      id: randomUUID(),
      tags: tags.slice(from, to),
      epochs: Object.fromEntries(epochs.slice(from, to)),
    });
  }
  return messages;
}

/** The message, or undefined when it is not one of ours: anybody who may connect may send on a channel. */
export function parse<Schema extends z.ZodType>(schema: Schema, payload: string): z.infer<Schema> | undefined {
  try {
    return schema.parse(JSON.parse(payload));
  } catch {
    return undefined;
  }
}
