export { createLocalIdentity } from './local-identity.ts';
export { LOCAL_ISSUER, signLocalToken } from './local-token.ts';
export { createPeople, operatorPrincipal, sessionPrincipal } from './people.ts';
