export { findPerson } from './find-person.ts';
export { installationOperator } from './installation-operator.ts';
export { createLocalIdentity } from './local-identity.ts';
export { LOCAL_ISSUER, signLocalToken } from './local-token.ts';
export { createOperatorCommands, type OperatorParts } from './operator.ts';
export { createPeople, operatorPrincipal, type Person } from './people.ts';
export { createSessions } from './sessions.ts';
