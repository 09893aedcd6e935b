import { fieldTable, resolved, table } from './docs-fields.ts';
import { escapeHtml, page, prose } from './docs-layout.ts';
import type { OpenApiDocument, OpenApiOperation } from './openapi.ts';
import type { Json } from './openapi-components.ts';

interface Entry {
  readonly method: string;
  readonly path: string;
  readonly operation: OpenApiOperation;
}

/** The reference page, made from the OpenAPI document alone. */
export function docsPage(document: OpenApiDocument): string {
  const sections = new Map<string, Entry[]>();
  for (const entry of entriesOf(document)) {
    const [tag] = entry.operation.tags;
    sections.set(tag, [...(sections.get(tag) ?? []), entry]);
  }
  const navigation = [...sections].map(
    ([tag, entries]) => `<h2>${escapeHtml(tag)}</h2><ul>${entries.map(navigationItem).join('')}</ul>`,
  );
  const main = [...sections].map(
    ([tag, entries]) =>
      `<h2 id="${escapeHtml(tag)}">${escapeHtml(tag)}</h2>\n${entries.map((entry) => article(document, entry)).join('\n')}`,
  );
  return page(
    `${document.info.title} ${document.info.version}: reference`,
    `<ul><li><a href="/docs/errors">Errors</a></li><li><a href="/openapi.json">OpenAPI document</a></li></ul>${navigation.join('\n')}`,
    `${introduction(document)}\n${main.join('\n')}`,
  );
}

function navigationItem({ path, operation }: Entry): string {
  const label = isService(operation) ? path : operation.operationId;
  return `<li><a href="#${anchor(operation)}">${escapeHtml(label)}</a></li>`;
}

/** Health, metrics, documentation: what is no operation, costs nothing and has no name that callers use. */
function isService(operation: OpenApiOperation): boolean {
  return operation['x-iora-cost'] === undefined;
}

function entriesOf(document: OpenApiDocument): Entry[] {
  return Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods)
      .filter(([method]) => !method.startsWith('x-'))
      .map(([method, operation]) => ({ method, path, operation: operation as OpenApiOperation })),
  );
}

function introduction(document: OpenApiDocument): string {
  const url = baseUrl(document);
  return `<h1>${escapeHtml(document.info.title)} reference</h1>
<p class="quiet">Version ${escapeHtml(document.info.version)}, at <code>${escapeHtml(url)}</code></p>
<p>${prose(document.info.description)}</p>
<p>Send a credential with every request, as <code>Authorization: Bearer</code>: an API key (<code>$IORA_KEY</code> in the examples) or the token of a session (<code>$IORA_TOKEN</code>); services sign their calls instead. The same operations are MCP tools at <code>${escapeHtml(url)}/mcp</code>. What each error code means, and what to do about it, is on the page <a href="/docs/errors">errors</a>.</p>`;
}

/** Where the examples point: the address the server was given, else where it listens. */
function baseUrl(document: OpenApiDocument): string {
  return document.servers[0]?.url ?? '';
}

function anchor(operation: OpenApiOperation): string {
  return escapeHtml(operation.operationId);
}

function article(document: OpenApiDocument, { method, path, operation }: Entry): string {
  const parameters = (operation.parameters ?? []).map(({ name, required, description, schema }) => ({
    name,
    required,
    schema: description === undefined ? schema : { ...schema, description },
  }));
  const body = operation.requestBody?.content['application/json']['schema'];
  return `<article id="${anchor(operation)}">
<h3><a href="#${anchor(operation)}"><span class="method ${method}">${method.toUpperCase()}</span> <code>${escapeHtml(path)}</code></a></h3>
<p>${prose(operation.summary)}</p>
${facts(operation)}
${titled('Parameters', table(document, parameters))}
${titled('Body', body === undefined ? '' : fieldTable(document, body as Json))}
${titled('Example', `<pre><code>${escapeHtml(curl(document, { method, path, operation }))}</code></pre>`)}
${answers(document, operation)}
</article>`;
}

function titled(title: string, html: string): string {
  return html === '' ? '' : `<h4>${title}</h4>\n${html}`;
}

/** Who calls, by the name of the security scheme. */
const callerWords: Readonly<Record<string, string>> = {
  api_key: 'API keys',
  session: 'sessions',
  service: 'services that sign their calls',
};

const enumeration = new Intl.ListFormat('en-GB', { type: 'conjunction' });

function facts(operation: OpenApiOperation): string {
  const cost = operation['x-iora-cost'];
  const permission = operation['x-iora-permission'];
  const kinds = operation.security.flatMap((item) => Object.keys(item));
  const words = [
    ...(isService(operation) ? [] : [`<code>${escapeHtml(operation.operationId)}</code>`]),
    ...(kinds.length > 0 ? [`for ${enumeration.format(kinds.map((kind) => callerWords[kind] ?? kind))}`] : []),
    ...(typeof permission === 'string' ? [`needs <code>${escapeHtml(permission)}</code>`] : []),
    ...(cost === undefined ? [] : [cost === 0 ? 'free' : `costs ${cost}`]),
  ];
  return words.length === 0 ? '' : `<p class="facts">${words.map((word) => `<span>${word}</span>`).join('')}</p>`;
}

function answers(document: OpenApiDocument, operation: OpenApiOperation): string {
  const codes: string[] = [];
  let success = '';
  for (const [status, unresolved] of Object.entries(operation.responses)) {
    const response = resolved(document, unresolved);
    const content = (response['content'] ?? {}) as Readonly<Record<string, { readonly schema: Json }>>;
    const problem = content['application/problem+json'];
    if (problem !== undefined) codes.push(...codesOf(problem.schema).map((code) => errorLink(status, code)));
    const json = content['application/json'];
    if (json !== undefined) success = titled(`Answer ${escapeHtml(status)}`, fieldTable(document, json.schema));
  }
  // What is no operation can only fail in the ways that everything can; a list of those would be noise.
  if (isService(operation)) return success;
  return `${success}\n${titled('Errors', `<ul class="codes">${codes.join('')}</ul>`)}`;
}

function codesOf(schema: Json): readonly string[] {
  const parts = (schema['allOf'] ?? []) as readonly { properties?: { code?: { enum?: readonly string[] } } }[];
  return parts.flatMap((part) => part.properties?.code?.enum ?? []);
}

function errorLink(status: string, code: string): string {
  return `<li>${escapeHtml(status)} <a href="/docs/errors#${escapeHtml(code)}">${escapeHtml(code)}</a></li>`;
}

/** What a signed call carries; docs/operations/service-signatures.md shows how the values come about. */
const signatureLines = ['key-id', 'timestamp', 'nonce', 'signature'].map(
  (name) => `-H "x-iora-${name}: $IORA_${name.replace('-', '_').toUpperCase()}"`,
);

function curl(document: OpenApiDocument, { method, path, operation }: Entry): string {
  const query = new URLSearchParams();
  let filled = path;
  for (const { name, in: place, example } of operation.parameters ?? []) {
    if (place === 'path') filled = filled.replace(`{${name}}`, encodeURIComponent(String(example ?? name)));
    else if (example !== undefined) query.set(name, String(example));
  }
  const url = `${baseUrl(document)}${filled}${query.size > 0 ? `?${query}` : ''}`;
  const lines = [
    `curl -sS ${method === 'get' ? '' : `-X ${method.toUpperCase()} `}${query.size > 0 ? quoted(url) : url}`,
  ];
  const kinds = operation.security.flatMap((item) => Object.keys(item));
  if (kinds.includes('api_key')) lines.push('-H "Authorization: Bearer $IORA_KEY"');
  else if (kinds.includes('session')) lines.push('-H "Authorization: Bearer $IORA_TOKEN"');
  else lines.push(...(kinds.includes('service') ? signatureLines : []));
  const example = operation.requestBody?.content['application/json']['example'];
  if (example !== undefined) lines.push('-H "Content-Type: application/json"', `-d ${quoted(JSON.stringify(example))}`);
  return lines.join(' \\\n  ');
}

/** An argument that the shell takes as it is. */
function quoted(argument: string): string {
  return `'${argument.replaceAll("'", "'\\''")}'`;
}
