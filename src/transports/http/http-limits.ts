// Every bound of the HTTP server. They are constants, not settings: none of them needs to differ between installations.

/** Largest request body: an input is a handful of short fields, an MCP message a few of those. */
export const BODY_BYTES_MAX = 65_536;

/** Of a body that is too large, so much is read and dropped, so that the caller gets to read the refusal. */
export const DRAIN_BYTES_MAX = 1_048_576;

/** Nesting of a JSON body. No schema comes near it, and what walks over the value later may use recursion. */
export const JSON_DEPTH_MAX = 32;

/** Longest path and query: a cursor of 512 characters and some parameters. */
export const URL_LENGTH_MAX = 4_096;

/** Longest path parameter, well above any id. */
export const PATH_PARAMETER_LENGTH_MAX = 256;

/** Request line and headers together; a session token takes up to half of it. */
export const HEADER_BYTES_MAX = 16_384;

/** As much of `User-Agent` as the audit trail keeps. */
export const USER_AGENT_LENGTH_MAX = 256;

/** Connections open at once; each costs some 10 KB, and a process may have about so many files open. */
export const CONNECTIONS_MAX = 10_000;

/** Time for all headers, and for the whole request, to arrive: at 64 KiB a caller on any network is done long before. */
export const HEADERS_TIMEOUT_MS = 10_000;
export const REQUEST_TIMEOUT_MS = 30_000;

/** How often the two timeouts are looked at, so how late they may come. */
export const TIMEOUT_CHECK_INTERVAL_MS = 1_000;

/** A connection kept for the next request: longer than the 60 s of usual load balancers, so that they close first. */
export const KEEP_ALIVE_TIMEOUT_MS = 65_000;

/** How long a caller may leave an answer unread, at least; twice as long at most. */
export const STALLED_CHECK_INTERVAL_MS = 60_000;

/** Operations that the log line of one MCP request names; a batch may hold more. */
export const LOGGED_OPERATIONS_MAX = 20;
