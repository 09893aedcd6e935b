import { defineOperation } from '../../kernel/operation.ts';
import { effectVolatile } from '../keys/index.ts';
import type { OperatorParts } from './operator.ts';
import { changeSuspension, suspensionInput, suspensionOutput } from './suspension.ts';

/** Lifts a suspension: what was refused because of it works again at once. */
export const resumeTenant = (parts: OperatorParts) =>
  defineOperation({
    name: 'tenants.resume',
    route: { method: 'POST', path: '/tenants/{tenant}/resume' },
    summary: 'Resume an organization or a person that is suspended',
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
    audit: { action: 'tenant_resumed', resourceType: 'tenant' },
    example: { tenant: 'acme' },
    run: (context, request) => changeSuspension(parts, context, request, false),
  });
