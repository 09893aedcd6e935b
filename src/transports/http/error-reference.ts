import type { ErrorCode } from '../../kernel/errors.ts';

/** What a caller can read about an error code. */
export interface ErrorText {
  /** What happened. */
  readonly meaning: string;
  /** What to do now. */
  readonly next: string;
}

/** The error reference, a section a code. The page /docs/errors and docs/reference/errors.md are made from it. */
export const errorReference: Readonly<Record<ErrorCode, ErrorText>> = {
  invalid_input: {
    meaning:
      'The request was readable, but its fields do not fit the schema of the operation: a field is missing, unknown, of the wrong type, out of range, or given twice. Nothing was run and nothing charged.',
    next: 'Read `detail` and `issues`: each issue names the field in `path` and what is wrong with it. Mend those fields and send the request again.',
  },
  malformed_request: {
    meaning:
      'The request could not be read at all: broken HTTP, a path that is not well encoded, a missing Host header, a body that is not a JSON object in UTF-8, is nested too deeply, uses a forbidden name such as `__proto__`, or comes with a method that takes none.',
    next: 'Send one JSON object with POST and PATCH, and no body with GET and DELETE. Let a JSON library write the body rather than gluing text together.',
  },
  unauthenticated: {
    meaning:
      'No credential came with the request, or it is not one that is valid now. Unknown, mistyped, expired and revoked credentials all get this same answer, so that nobody learns which keys exist.',
    next: 'Send `Authorization: Bearer` followed by an API key or a session token. If you did, compare the key with the one you were given, look whether it is still listed as active, and make a new one if it is not.',
  },
  quota_exceeded: {
    meaning:
      'The calls of this UTC calendar month are used up, either those of the owner or those that the key sets for itself. The call was not run and not charged.',
    next: 'Wait for the first of the next month, raise the limit that the key sets for itself, or move to a higher tier. Trying again earlier cannot succeed.',
  },
  forbidden: {
    meaning:
      'The credential is valid but does not allow this: it lacks a permission, is of the wrong kind, or the role it stands for may not do it. On `/mcp` also: the Host or Origin of the request is not one that the server answers for.',
    next: 'Look at `requiredPermission` and use a key that holds it, or sign in where a session is asked for. A key never gets permissions that its creator does not have. For a refused Host or Origin, call the server under its public address.',
  },
  insufficient_scope: {
    meaning:
      'The OAuth access token is valid, but was issued for less than this call needs. `missingScopes` names what it lacks.',
    next: 'Ask the authorization server for a token with the `scopes` of the answer, which are those the token has and the missing ones. MCP clients do so by themselves when they read `WWW-Authenticate`.',
  },
  not_found: {
    meaning:
      'There is nothing at this address: the path is unknown, or no resource of yours has this id. Resources of others are answered the same way as those that do not exist.',
    next: 'Check the path against the reference, and the id against the list of your resources.',
  },
  unknown_symbol: {
    meaning: 'The symbol is none of those that the price sources list. Nothing was charged.',
    next: 'Take one of the nearest known symbols named in the answer, or ask `list_symbols`, which is free.',
  },
  method_not_allowed: {
    meaning:
      'The path exists, but not with this HTTP method. The server sends no CORS headers either, so a preflight with OPTIONS ends here.',
    next: 'Use one of the methods in the `Allow` header. Call the service from a server rather than from a page in a browser.',
  },
  not_acceptable: {
    meaning:
      'The `Accept` header leaves out every media type that the answer could have. Only `/mcp` looks at it; all other answers are JSON, whatever is accepted.',
    next: 'Accept both `application/json` and `text/event-stream` when you call `/mcp`.',
  },
  request_timeout: {
    meaning: 'The headers or the body took too long to arrive, and the connection was closed. Nothing was run.',
    next: 'Send the request again, in one go. If it happens often, look at the network and at proxies between you and the server.',
  },
  already_exists: {
    meaning: 'What should be created exists already, under the same name or id.',
    next: 'Use what exists, or choose another name.',
  },
  key_limit_reached: {
    meaning:
      'The owner has as many active API keys as the tier allows; or, at a rotation, as many secrets of the key are kept as may be.',
    next: 'Revoke a key that is no longer used, or move to a higher tier; instead of the key that has had so many secrets, make a new one.',
  },
  rotation_in_progress: {
    meaning:
      'As many secrets of the key work at the same time as may: the newest, and those that earlier rotations gave an overlap. Nothing was changed.',
    next: 'Wait until `retryAt`, when the next overlap ends, or rotate with `overlapSeconds` 0, which ends all older secrets at once.',
  },
  payload_too_large: {
    meaning: 'The request body is larger than any operation takes; `maxBytes` is the bound.',
    next: 'Send a smaller body. No operation needs more than a few short fields.',
  },
  uri_too_long: {
    meaning: 'The path with its query, or one parameter in the path, is longer than any address of this service.',
    next: 'Check the ids and cursors that were put into the address; they are passed on exactly as they were received.',
  },
  unsupported_media_type: {
    meaning: 'The body is not declared as JSON in UTF-8, or it is compressed.',
    next: 'Set `Content-Type: application/json` and leave `Content-Encoding` away.',
  },
  rate_limited: {
    meaning:
      'More calls came within the last 60 seconds than the owner, or the key by its own limit, may make. The call was not run, not charged, and does not count against the limit either.',
    next: 'Wait as many seconds as `Retry-After` says, then go on. `RateLimit` in every metered answer tells how much is left, so that a client can slow down before it is refused.',
  },
  headers_too_large: {
    meaning: 'Request line and headers together are larger than the server reads. The connection was closed.',
    next: 'Send fewer or smaller headers; cookies of other services are a usual cause.',
  },
  internal: {
    meaning:
      'Something failed that should not have. The call was not charged. What went wrong is in the server log under the request id, never in the answer.',
    next: 'Try again a little later. If it persists, tell the operator the `requestId`.',
  },
  upstream_unavailable: {
    meaning:
      'Too few market sources answered, or they disagreed too much, and no recent enough price is at hand. The call was not charged.',
    next: 'Try again after `Retry-After`, or later. The service never makes up a price.',
  },
  unavailable: {
    meaning:
      'The service cannot answer at the moment: its database is away, it is stopping, or it can record no further usage. The call was not charged.',
    next: 'Try again after `Retry-After`. Several failures in a row are worth a look at `/readyz`.',
  },
};
