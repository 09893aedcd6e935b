import { defineOperation } from '../../kernel/operation.ts';
import { effectVolatile } from '../keys/index.ts';
import type { OperatorParts } from './operator.ts';
import { changeInput, changeOutput, changePermissions } from './platform-permissions.ts';

/** Takes platform permissions away from a person, on every instance at once. */
export const revokeAdmin = (parts: OperatorParts) =>
  defineOperation({
    name: 'admin.revoke',
    route: { method: 'DELETE', path: '/admin/people/{person}' },
    summary: 'Take the permissions of an administrator away',
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
    audit: { action: 'admin_revoked', resourceType: 'user' },
    example: { person: 'ada@example.com' },
    run: (context, request) => changePermissions(parts, context, request, false),
  });
