import assert from 'node:assert/strict';
import { test } from 'node:test';
import { processCommands } from './process-commands.ts';
import { cliReference } from './reference.ts';
import { elsewhere, everyKind, paged } from './test-operations.ts';

const page = cliReference([everyKind, paged, elsewhere]);

test('the page has every command that is offered, with its summary', () => {
  const headings = page.match(/^### .*$/gm) ?? [];
  const own = processCommands.map(([, { words, positionals }]) =>
    ['iora', ...words, ...positionals.map(({ name }) => `<${name}>`)].join(' '),
  );
  assert.deepEqual(
    headings,
    [...own, 'iora things make-one <id>', 'iora things list'].map((command) => `### \`${command}\``),
  );
  assert.match(page, /The summary of things\.make_one\./);
  assert.doesNotMatch(page, /things\.current/);
});

test('the example is one that a shell reads back', () => {
  assert.ok(
    page.includes(
      `iora things make-one --user ada@example.com 0198f2a0-7c11-7b3a-9d4e-2f6a1c0b5e77 --name 'it'\\''s new' --tags a,b --no-loud`,
    ),
  );
});

test('tables stay whole: a bar in a cell is escaped', () => {
  assert.ok(page.includes('| `--kind <big\\|small>` | Its size (default big) |'));
});
