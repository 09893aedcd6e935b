import type { CallToolResult } from '@modelcontextprotocol/server';
import { type Problem, toProblem } from '../../kernel/errors.ts';
import type { LimitState, Outcome } from '../../kernel/invoke.ts';
import { metaKeys } from './tools.ts';

/**
 * What `tools/call` answers for an outcome. A success has the output as structured content and as JSON text. A refusal
 * or failure has the problem as its only text and no structured content, which older clients would hold against the
 * output schema. `_meta` tells the limits as they stand, and the problem for clients that read no text.
 */
export function toToolResult(outcome: Outcome, requestId: string, docsUrl: string | undefined): CallToolResult {
  const limits = outcome.limits.length === 0 ? {} : { [metaKeys.limits]: outcome.limits.map(publicLimit) };
  if (outcome.ok) {
    return {
      content: [{ type: 'text', text: JSON.stringify(outcome.output) }],
      structuredContent: outcome.output,
      _meta: limits,
    };
  }
  const problem = withRetryTime(toProblem(outcome.error, requestId, docsUrl));
  return {
    isError: true,
    content: [{ type: 'text', text: JSON.stringify(problem) }],
    _meta: { ...limits, [metaKeys.problem]: problem },
  };
}

/** HTTP says it in `Retry-After`; a tool result has no headers, so the problem says when to come back. */
function withRetryTime(problem: Problem): Problem {
  const seconds = problem['retryAfterSeconds'];
  if (!problem.retryable || typeof seconds !== 'number') return problem;
  return { ...problem, retryAfterMs: Math.ceil(seconds * 1000) };
}

function publicLimit({ policy, limit, remaining, windowSeconds, resetSeconds }: LimitState): LimitState {
  return { policy, limit, remaining, windowSeconds, resetSeconds };
}
