/** The path of an operation, `/user/api-keys/{id}`, as the router writes it: `/user/api-keys/:id`. */
export function routerPath(path: string): string {
  return path.replaceAll(/\{(\w+)\}/g, ':$1');
}

/** Names of the parameters in an operation's path, in their order. */
export function pathParameters(path: string): string[] {
  return [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name ?? '');
}

/** Whether the path of a request is one that the router's `pattern` stands for. */
export function isAt(pattern: string, path: string): boolean {
  const asked = path.split('/');
  const parts = pattern.split('/');
  return parts.length === asked.length && parts.every((part, index) => part.startsWith(':') || part === asked[index]);
}
