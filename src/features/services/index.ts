import type { Feature } from '../../kernel/operation.ts';
import { forgetNonces } from './forget-nonces.job.ts';

export { createServiceAuthenticator } from './authenticate-service.ts';
export { createPostgresNonces, createRedisNonces } from './nonces.ts';

/** Services that sign their calls. They call the operations of others and have none of their own. */
export function createServices(): Feature {
  return { name: 'services', operations: [], jobs: [forgetNonces] };
}
