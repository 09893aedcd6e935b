const PUBLISHABLE_KEY = /^pk_(?:test|live)_([A-Za-z0-9+/]+={0,2})$/;
const FRONTEND_API = /^([a-z0-9-]+(?:\.[a-z0-9-]+)+(?::\d{1,5})?)\$$/i;

/**
 * The issuer of the tokens of the Clerk instance that a publishable key names, null for a malformed one. Behind its prefix
 * the key is the base64 of the host of the Frontend API and a `$`; that host issues the tokens.
 */
export function clerkIssuerOf(publishableKey: string): string | null {
  const encoded = PUBLISHABLE_KEY.exec(publishableKey)?.[1];
  if (encoded === undefined) return null;
  const host = FRONTEND_API.exec(Buffer.from(encoded, 'base64').toString('latin1'))?.[1];
  return host === undefined ? null : `https://${host}`;
}
