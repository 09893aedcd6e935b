import assert from 'node:assert/strict';
import { existsSync, globSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import packageFile from '../package.json' with { type: 'json' };
import { errorTable } from '../src/kernel/errors.ts';
import { describeOperations } from '../src/main/operation-list.ts';
import { offered, operationSpec } from '../src/transports/cli/operation-commands.ts';
import { processCommands } from '../src/transports/cli/process-commands.ts';

/** What the pages say exists, exists. Every test first makes sure that it has read something. */

const root = fileURLToPath(new URL('..', import.meta.url));
const pages = ['README.md', 'ARCHITECTURE.md', 'CONTRIBUTING.md', ...globSync('docs/**/*.md', { cwd: root })].map(
  (path) => ({ path, text: readFileSync(join(root, path), 'utf8') }),
);

/** What the expression captures on all pages, each with its page. */
function found(expression: RegExp): { path: string; words: string[] }[] {
  return pages.flatMap(({ path, text }) =>
    [...text.matchAll(expression)].map((match) => ({
      path,
      words: match.slice(1).filter((word) => word !== undefined),
    })),
  );
}

test('no page holds a place that is still to be filled', () => {
  assert.ok(pages.length >= 10, `only ${pages.length} pages`);
  assert.deepEqual(found(/\b([A-Z]+_OUTPUT|TODO|TBD|FIXME|XXX)\b/g), []);
});

test('every relative link points to something that is there', () => {
  const links = found(/\]\(([^)\s#]+)[^)]*\)/g).filter(({ words: [target = ''] }) => !/^[a-z]+:/.test(target));
  assert.ok(links.length >= 10, `only ${links.length} links`);
  const broken = links.filter(({ path, words: [target = ''] }) => !existsSync(join(root, dirname(path), target)));
  assert.deepEqual(broken, []);
});

test('every npm script that is named is one', () => {
  const scripts = found(/\bnpm run (?:--?\w+ )*([\w:-]+)/g);
  assert.ok(scripts.length >= 5, `only ${scripts.length} scripts`);
  assert.deepEqual(
    scripts.filter(({ words: [name = ''] }) => !Object.hasOwn(packageFile.scripts, name)),
    [],
  );
});

test('every command that is named is one', () => {
  const specs = [...processCommands.map(([, spec]) => spec), ...offered(describeOperations()).map(operationSpec)];
  const commands = found(/(?:bin\/iora|npm run iora --|`iora) ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?/g);
  assert.ok(commands.length >= 20, `only ${commands.length} commands`);
  const exists = ([noun, verb]: readonly (string | undefined)[]) =>
    specs.some(({ words }) => words[0] === noun && (verb === undefined || words[1] === undefined || words[1] === verb));
  assert.deepEqual(
    commands.filter(({ words }) => !exists(words)),
    [],
  );
});

test('the page of errors has a section for every code, and for nothing else', () => {
  const page = pages.find(({ path }) => path === 'docs/reference/errors.md');
  const sections = [...(page?.text ?? '').matchAll(/^## (\S+)$/gm)].map((match) => match[1]);
  assert.deepEqual(sections.toSorted(), Object.keys(errorTable).toSorted());
});
