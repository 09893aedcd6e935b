export { checkHostAndOrigin } from './host-and-origin.ts';
export { createMcpTransport } from './mcp-transport.ts';
export { createProtectedResource } from './protected-resource.ts';
