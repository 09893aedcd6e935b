import pg from 'pg';

/** What a failure of the database means for whoever asked: come back later, try again at once, or a mistake of ours. */

/** The database could not be reached or did not answer; the caller may come back later. */
export class DatabaseUnavailableError extends Error {
  constructor(cause: unknown) {
    super('the database cannot be reached or does not answer', { cause });
    this.name = 'DatabaseUnavailableError';
  }
}

/** SQLSTATE of a server's answer, else undefined. */
export function sqlState(error: unknown): string | undefined {
  return error instanceof pg.DatabaseError ? error.code : undefined;
}

/** Whether the transaction lost a race that it may win when it is run again. */
export function isSerializationFailure(error: unknown): boolean {
  const code = sqlState(error);
  return code === '40001' || code === '40P01';
}

/**
 * Whether the server refused what a row holds: data exceptions (22), violated constraints (23), and a month that has no
 * partition even after the months were made, which is one far from now.
 */
export function isRefusedData(error: unknown): boolean {
  return /^2[23]/.test(sqlState(error) ?? '');
}

/** Whether a row belongs to a month that has no partition. Told from a CHECK by where it arose: messages are translated. */
export function isMissingPartition(error: unknown): boolean {
  return error instanceof pg.DatabaseError && error.code === '23514' && error.routine === 'ExecFindPartition';
}

/**
 * Server states in which coming back later helps: connection lost (08), too many connections or out of resources (53),
 * cancelled by a timeout or shutdown (57), lock not available (55P03).
 */
const UNAVAILABLE_STATES = /^(?:08|53|57)|^55P03$/;

/** Whether this is an outage: only what the driver or the server said counts, never what other code threw. */
export function isUnavailable(error: unknown): boolean {
  return error instanceof DatabaseUnavailableError || UNAVAILABLE_STATES.test(sqlState(error) ?? '');
}

/** States after which the server closes the connection: it is shutting down, or the session was ended. */
const CLOSING_STATES = /^(?:08|57P|25P03)/;

/** Whether the server's answer was its last on that connection. */
export function endsConnection(error: pg.DatabaseError): boolean {
  return CLOSING_STATES.test(error.code ?? '');
}

/** Codes of the operating system (ECONNREFUSED) and of TLS (SELF_SIGNED_CERT_IN_CHAIN). */
const CONNECTION_CODE = /^E[A-Z]{3,}$|CERT/;

/** The driver's own messages for a connection that is gone; it gives them no code. */
const CONNECTION_MESSAGE = /Connection terminated|Query read timeout|not queryable/;

/** Whether an error that the driver threw for a query is about the connection, rather than about what it was given. */
export function isConnectionLoss(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  return ('code' in error && CONNECTION_CODE.test(String(error.code))) || CONNECTION_MESSAGE.test(error.message);
}
