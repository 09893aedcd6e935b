export { createLocalIdentity, emailSchema, type LocalIdentity, slugSchema } from './local-identity.ts';
export { createPeople } from './people.ts';
