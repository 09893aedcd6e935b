/** A host name or address with an optional port, and nothing that would turn the URL into another one. */
const HOST = /^[a-z0-9.-]+(?::\d{1,5})?$/i;

/**
 * Who issues the tokens of a Clerk instance, as its tokens name it (`https://clerk.example.com`). The publishable key is
 * `pk_live_` or `pk_test_` and base64 of the host with a `$` behind it. Throws RangeError for a key that holds no host.
 */
export function clerkIssuer(publishableKey: string): string {
  const encoded = /^pk_(?:test|live)_(.+)$/.exec(publishableKey)?.[1] ?? '';
  const decoded = Buffer.from(encoded, 'base64').toString('utf8');
  const host = decoded.slice(0, -1);
  if (!decoded.endsWith('$') || !HOST.test(host)) {
    throw new RangeError('The publishable key names no host: copy it anew from the dashboard of Clerk.');
  }
  return `https://${host}`;
}
