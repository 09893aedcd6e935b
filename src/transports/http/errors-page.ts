import { type ErrorCode, errorTable } from '../../kernel/errors.ts';
import { escapeHtml, page, prose } from './docs-layout.ts';
import { errorReference } from './error-reference.ts';

/** The error reference: a section a code, under the anchor that the `type` of a problem names. */
export function errorsPage(version: string): string {
  const codes = Object.keys(errorTable) as ErrorCode[];
  const links = codes.map((code) => `<li><a href="#${code}">${code}</a></li>`).join('');
  const sections = codes.map((code) => {
    const { status, title, retryable } = errorTable[code];
    const { meaning, next } = errorReference[code];
    return `<section id="${code}">
<h3><a href="#${code}"><span class="method">${status}</span> <code>${code}</code></a></h3>
<p><strong>${escapeHtml(title)}.</strong> ${prose(meaning)}</p>
<p>${prose(next)}</p>
<p class="quiet">${retryable ? 'The same request may succeed later.' : 'Repeating the same request does not help.'}</p>
</section>`;
  });
  return page(
    `IORA ${version}: errors`,
    `<ul><li><a href="/docs">Reference</a></li></ul><h2>Errors</h2><ul>${links}</ul>`,
    `<h1>Errors</h1>
<p>Every refusal is <code>application/problem+json</code> (RFC 9457) with the members <code>type</code>, <code>title</code>, <code>status</code>, <code>code</code>, <code>detail</code>, <code>requestId</code> and <code>retryable</code>. Programs go by <code>code</code>; <code>detail</code> is for people. Over MCP the same document is the text of a tool result with <code>isError</code>.</p>
${sections.join('\n')}`,
  );
}
