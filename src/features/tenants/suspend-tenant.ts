import { defineOperation } from '../../kernel/operation.ts';
import { effectVolatile } from '../keys/index.ts';
import type { OperatorParts } from './operator.ts';
import { changeSuspension, suspensionInput, suspensionOutput } from './suspension.ts';

/** Refuses every key and session of an organization or a person, from the answer on. */
export const suspendTenant = (parts: OperatorParts) =>
  defineOperation({
    name: 'tenants.suspend',
    route: { method: 'POST', path: '/tenants/{tenant}/suspend' },
    summary: 'Suspend an organization or a person: its keys and sessions are refused',
    permission: 'admin:write',
    callers: ['operator'],
    audience: 'operator',
    transports: ['cli'],
    cost: 0,
    input: suspensionInput,
    output: suspensionOutput,
    answer: 'json',
    volatile: [...effectVolatile, 'suspendedAt'],
    idempotent: true,
    readOnly: false,
    audit: { action: 'tenant_suspended', resourceType: 'tenant' },
    example: { tenant: 'acme', reason: 'unpaid since March' },
    run: (context, request) => changeSuspension(parts, context, request, true),
  });
