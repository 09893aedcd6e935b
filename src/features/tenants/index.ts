export { createLocalIdentity, LOCAL_ISSUER, signLocalToken } from './local-identity.ts';
export { createPeople, sessionPrincipal } from './people.ts';
