import { createHash } from 'node:crypto';

/** Text as it may stand between tags and inside quoted attributes. */
export function escapeHtml(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
}

/** Escaped text in which `code` becomes code. */
export function prose(text: string): string {
  return escapeHtml(text).replaceAll(/`([^`]+)`/g, '<code>$1</code>');
}

/** A whole page; `navigation` and `main` are HTML. Complete without scripts and without anything from elsewhere. */
export function page(title: string, navigation: string, main: string): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${escapeHtml(title)}</title>
<link rel="icon" href="data:,">
<style>${style}</style>
</head>
<body>
<nav aria-label="Contents">
<a class="brand" href="/docs">IORA</a>
${navigation}
</nav>
<main>
${main}
</main>
</body>
</html>
`;
}

const style = `
:root{--ground:#fff;--panel:#f6f7f9;--line:#dfe3e8;--text:#1b2430;--quiet:#5a6675;--accent:#0b5fc2;--code:#f0f2f5;--get:#0b6b43;--post:#0b5fc2;--patch:#8a5a00;--delete:#b3261e}
@media (prefers-color-scheme:dark){:root{--ground:#12161c;--panel:#181d25;--line:#2c3440;--text:#e4e8ee;--quiet:#9aa6b5;--accent:#7db4ff;--code:#1f2630;--get:#6fcf9f;--post:#7db4ff;--patch:#e0b15c;--delete:#ff9189}}
*{box-sizing:border-box}
html{scroll-padding-top:1rem}
body{margin:0;background:var(--ground);color:var(--text);font:16px/1.55 system-ui,sans-serif;display:grid;grid-template-columns:17rem minmax(0,1fr)}
a{color:var(--accent);text-underline-offset:.15em}
nav{position:sticky;top:0;align-self:start;height:100vh;overflow-y:auto;padding:1.5rem 1.25rem;background:var(--panel);border-right:1px solid var(--line);font-size:.875rem}
nav .brand{display:block;font-size:1.25rem;font-weight:700;letter-spacing:.04em;color:var(--text);text-decoration:none;margin-bottom:1rem}
nav h2{margin:1.25rem 0 .25rem;font-size:.75rem;letter-spacing:.06em;text-transform:uppercase;color:var(--quiet);border:0;padding:0}
nav ul{list-style:none;margin:0;padding:0}
nav li a{display:block;padding:.2rem 0;color:var(--text);text-decoration:none;overflow-wrap:anywhere}
nav a:hover{color:var(--accent)}
main{max-width:58rem;padding:2rem 2.5rem 6rem}
h1{font-size:1.9rem;line-height:1.2;margin:.25rem 0 .5rem}
h2{font-size:1.35rem;margin:3rem 0 .5rem;padding-bottom:.35rem;border-bottom:1px solid var(--line)}
h3{font-size:1.05rem;margin:2.25rem 0 .25rem;overflow-wrap:anywhere}
h4{font-size:.8rem;letter-spacing:.05em;text-transform:uppercase;color:var(--quiet);margin:1.25rem 0 .35rem}
h3 a,h2 a{color:inherit;text-decoration:none}
p{margin:.35rem 0}
.quiet{color:var(--quiet);font-size:.9rem}
code,pre{font:.86em/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
code{background:var(--code);padding:.1em .3em;border-radius:4px;overflow-wrap:anywhere}
pre{background:var(--code);padding:.85rem 1rem;border-radius:8px;overflow-x:auto;margin:.35rem 0}
pre code{background:none;padding:0;font-size:1em;overflow-wrap:normal}
.method{display:inline-block;min-width:3.6rem;font:700 .8rem ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
.get{color:var(--get)}.post{color:var(--post)}.patch{color:var(--patch)}.delete{color:var(--delete)}
h3 code{background:none;padding:0;font-size:1rem}
table{border-collapse:collapse;width:100%;font-size:.9rem}
th,td{text-align:left;vertical-align:top;padding:.4rem .75rem .4rem 0;border-bottom:1px solid var(--line)}
th{font-weight:600;color:var(--quiet);font-size:.8rem}
td:first-child,td:nth-child(2){width:32%}
.facts{display:flex;flex-wrap:wrap;gap:.25rem 1.25rem;margin:.35rem 0;font-size:.9rem;color:var(--quiet)}
.codes{display:flex;flex-wrap:wrap;gap:.25rem .9rem;font-size:.9rem;margin:.25rem 0;padding:0;list-style:none}
@media (max-width:56rem){
body{display:block}
nav{position:static;height:auto;border-right:0;border-bottom:1px solid var(--line);padding:1rem 1.25rem}
nav ul{display:flex;flex-wrap:wrap;gap:0 1rem}
main{padding:1rem 1.25rem 4rem}
table,tbody,tr,td{display:block;width:auto}
thead{display:none}
tr{padding:.5rem 0;border-bottom:1px solid var(--line)}
td,td:first-child,td:nth-child(2){width:auto;border:0;padding:.05rem 0}
td:empty{display:none}
}
`;

/** The headers of the pages: nothing is loaded or run but the style above, and nobody may frame them. */
export const pageHeaders: readonly string[] = [
  'content-security-policy',
  `default-src 'none'; style-src 'sha256-${createHash('sha256').update(style).digest('base64')}'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`,
  'referrer-policy',
  'no-referrer',
  'cross-origin-opener-policy',
  'same-origin',
];
