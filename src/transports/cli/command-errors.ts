/** The command line itself is wrong; the message is one line. Exit code 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** The command was told to end before it was done. */
export class InterruptedError extends Error {
  override readonly name = 'InterruptedError';
  /** 128 and the number of the signal, as shells have it. */
  readonly exitCode: number;

  constructor(exitCode: number) {
    super('interrupted');
    this.exitCode = exitCode;
  }
}
