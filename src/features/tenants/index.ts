export { createLocalIdentity } from './local-identity.ts';
export { emailSchema, LOCAL_ISSUER, signLocalToken, slugSchema } from './local-token.ts';
export { createPeople, operatorPrincipal, sessionPrincipal } from './people.ts';
