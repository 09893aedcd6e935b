import { defineOperation } from '../../kernel/operation.ts';
import { effectVolatile } from '../keys/index.ts';
import type { OperatorParts } from './operator.ts';
import { changeInput, changeOutput, changePermissions } from './platform-permissions.ts';

/** Makes a person an administrator of the platform, from their next call on. */
export const grantAdmin = (parts: OperatorParts) =>
  defineOperation({
    name: 'admin.grant',
    route: { method: 'POST', path: '/admin/people/{person}' },
    summary: 'Make a person an administrator of the platform',
    permission: 'admin:write',
    callers: ['operator'],
    audience: 'operator',
    transports: ['cli'],
    cost: 0,
    input: changeInput,
    output: changeOutput,
    answer: 'json',
    volatile: effectVolatile,
    idempotent: true,
    readOnly: false,
    audit: { action: 'admin_granted', resourceType: 'user' },
    example: { person: 'ada@example.com' },
    run: (context, request) => changePermissions(parts, context, request, true),
  });
