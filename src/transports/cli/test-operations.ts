import { z } from 'zod';
import { defineOperation, type Operation, pageInput } from '../../kernel/operation.ts';

/** Operations for the tests of this folder: one with every kind of field, one with a page, one that is not offered here. */

const fields = z.strictObject({
  id: z.uuid().describe('Which one'),
  name: z.string().min(1).describe('What it is called'),
  perMinute: z.int().min(1).nullable().optional().describe('At most so many'),
  ratio: z.number().optional(),
  kind: z.enum(['big', 'small']).default('big').describe('Its size'),
  tags: z
    .array(z.enum(['a', 'b', 'c']))
    .default(['a'])
    .describe('Its marks'),
  counts: z.array(z.int()).optional(),
  note: z.string().nullable().optional(),
  loud: z.boolean().optional().describe('Says it aloud'),
  until: z.iso.datetime({ offset: true }).nullable().optional(),
  more: z.object({ x: z.int() }).optional(),
});

const common = {
  permission: null,
  audience: 'tenant',
  cost: 0,
  answer: 'json',
  idempotent: true,
  readOnly: true,
} as const;

function operation(
  name: string,
  path: string,
  input: z.ZodType,
  transports: Operation['transports'],
  example: Record<string, unknown>,
): Operation {
  return defineOperation({
    ...common,
    name,
    route: { method: 'POST', path },
    summary: `The summary of ${name}`,
    transports,
    input,
    output: z.unknown(),
    example,
    run: () => Promise.reject(new Error('never run here')),
  });
}

export const everyKind = operation('things.make_one', '/things/{id}', fields, ['http', 'cli'], {
  id: '0198f2a0-7c11-7b3a-9d4e-2f6a1c0b5e77',
  name: "it's new",
  tags: ['a', 'b'],
  loud: false,
});

export const paged = operation('things.list', '/things', z.strictObject(pageInput), ['http', 'mcp', 'cli'], {
  limit: 5,
});

export const elsewhere = operation('things.current', '/things/current', z.strictObject({}), ['http'], {});
