/** What is told to Clerk: only public metadata, which its front ends read, and only by merging, so that the rest is kept. */
export interface ClerkMetadata {
  /** Sets the tier in the public metadata of a user or organization. Rejects when Clerk refuses or does not answer in time. */
  setTier(owner: {
    readonly kind: 'user' | 'organization';
    /** Clerk's own id. */
    readonly externalId: string;
    readonly tier: string;
  }): Promise<void>;
}

export interface ClerkMetadataOptions {
  readonly secretKey: string;
  readonly apiUrl: string;
  /** Longest wait for an answer. */
  readonly timeoutMs?: number;
}

/** Clerk answers in some hundred milliseconds; a stop of the server may have to wait for this. */
const TIMEOUT_MS = 5_000;

/** Speaks with the Clerk Backend API. Nothing is loaded or connected before the first use. */
export function openClerkMetadata({ secretKey, apiUrl, timeoutMs = TIMEOUT_MS }: ClerkMetadataOptions): ClerkMetadata {
  return {
    async setTier({ kind, externalId, tier }) {
      // Loaded only here: most processes never need it, and commands would start slower by it.
      const { createClerkClient } = await import('@clerk/backend');
      const { users, organizations } = createClerkClient({ secretKey, apiUrl, telemetry: { disabled: true } });
      const metadata = { publicMetadata: { tier } };
      const answered =
        kind === 'user'
          ? users.updateUserMetadata(externalId, metadata)
          : organizations.updateOrganizationMetadata(externalId, metadata);
      // The library has no bound of its own and takes no signal.
      const late = Promise.withResolvers<never>();
      const bound = setTimeout(() => late.reject(new Error(`Clerk did not answer in ${timeoutMs} ms`)), timeoutMs);
      await Promise.race([answered, late.promise]).finally(() => clearTimeout(bound));
    },
  };
}
