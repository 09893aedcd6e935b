export { type ClerkSyncParts, createClerkSync } from './clerk-sync.ts';
export { createLocalIdentity } from './local-identity.ts';
export { LOCAL_ISSUER, signLocalToken } from './local-token.ts';
export { createPeople, operatorPrincipal } from './people.ts';
export { createSessions } from './sessions.ts';
