/**
 * The issuer of a Clerk instance's tokens, `https://HOST`, from its publishable key: after `pk_test_` or `pk_live_` that is the
 * host and a dollar sign in base64 (clerk.com/docs, "Publishable key").
 */
export function clerkIssuer(publishableKey: string): string {
  const encoded = publishableKey.replace(/^pk_(?:test|live)_/, '');
  return `https://${Buffer.from(encoded, 'base64').toString().replace(/\$$/, '')}`;
}
