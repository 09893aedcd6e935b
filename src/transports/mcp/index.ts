export { checkHostAndOrigin } from './host-and-origin.ts';
export { createMcpTransport } from './mcp-transport.ts';
