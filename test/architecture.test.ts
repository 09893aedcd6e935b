import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { dirname, join, normalize, relative } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

/** The shape of the house, held by a test that first makes sure it has read something. */

const root = fileURLToPath(new URL('..', import.meta.url));

interface Import {
  readonly from: string;
  readonly to: string;
}

const files = globSync('src/**/*.ts', { cwd: root }).filter((file) => !file.endsWith('.test.ts'));
const imports: Import[] = files.flatMap((from) => importsOf(from).map((to) => ({ from, to })));
const ours = imports.filter(({ to }) => to.startsWith('src/'));

function importsOf(file: string): string[] {
  const text = readFileSync(join(root, file), 'utf8').replace(/^\s*(?:\/\/|\*|\/\*).*$/gm, '');
  const found = text.matchAll(
    /(?:^|;|\n)\s*(?:import|export)\b[^'";]*?\bfrom\s*['"]([^'"]+)['"]|\bimport\(\s*['"]([^'"]+)['"]\s*\)|(?:^|\n)\s*import\s*['"]([^'"]+)['"]/g,
  );
  return [...found].map((match) => {
    const name = match[1] ?? match[2] ?? match[3] ?? '';
    return name.startsWith('.') ? normalize(join(dirname(file), name)) : name;
  });
}

/** Rung of a file of ours: lib 0, platform 1, kernel 2, features and transports 3, main 4. */
function rung(file: string): number {
  const name = file.split('/')[1] ?? '';
  const rungs: Record<string, number> = { lib: 0, platform: 1, kernel: 2, features: 3, transports: 3, main: 4 };
  const found = rungs[name];
  assert.notEqual(found, undefined, `${file} lies on no rung`);
  return found ?? 0;
}

function area(file: string): string {
  return file.split('/').slice(1, 3).join('/');
}

test('the check reads the tree: files, imports and every rung are there', () => {
  assert.ok(files.length > 60, `only ${files.length} files read`);
  assert.ok(ours.length > 150, `only ${ours.length} imports read`);
  for (const name of ['lib', 'platform', 'kernel', 'features', 'transports', 'main']) {
    assert.ok(
      files.some((file) => file.startsWith(`src/${name}/`)),
      `no file of ${name} was read`,
    );
  }
  assert.ok(ours.some(({ from, to }) => from === 'src/main/wire.ts' && to === 'src/kernel/invoke.ts'));
  assert.ok(imports.some(({ from, to }) => from === 'src/platform/postgres.ts' && to === 'pg'));
});

test('imports point to the same rung or further in, never out', () => {
  const wrong = ours.filter(({ from, to }) => rung(to) > rung(from));
  assert.deepEqual(wrong, []);
});

test('lib imports nothing of ours but itself', () => {
  assert.deepEqual(
    ours.filter(({ from, to }) => from.startsWith('src/lib/') && !to.startsWith('src/lib/')),
    [],
  );
});

test('features and transports do not know each other, nor one transport another', () => {
  const wrong = ours.filter(({ from, to }) => {
    if (rung(from) !== 3 || rung(to) !== 3) return false;
    const [fromKind, toKind] = [from.split('/')[1], to.split('/')[1]];
    return fromKind !== toKind || (fromKind === 'transports' && area(from) !== area(to));
  });
  assert.deepEqual(wrong, []);
});

test('one feature uses another only through its index, without cycles', () => {
  const across = ours.filter(
    ({ from, to }) => from.startsWith('src/features/') && to.startsWith('src/features/') && area(from) !== area(to),
  );
  assert.deepEqual(
    across.filter(({ to }) => !to.endsWith('/index.ts')),
    [],
  );
  const uses = new Map<string, Set<string>>();
  for (const { from, to } of across) uses.set(area(from), (uses.get(area(from)) ?? new Set()).add(area(to)));
  const visit = (feature: string, path: string[]): void => {
    assert.ok(!path.includes(feature), `cycle: ${[...path, feature].join(' -> ')}`);
    for (const next of uses.get(feature) ?? []) visit(next, [...path, feature]);
  };
  for (const feature of uses.keys()) visit(feature, []);
});

test('only platform knows the drivers, and only config.ts reads the environment', () => {
  const drivers = /^(?:pg|ioredis|pino|pg-boss|prom-client|bentocache(?:\/.*)?|node-pg-migrate)$/;
  assert.deepEqual(
    imports.filter(({ from, to }) => drivers.test(to) && !from.startsWith('src/platform/')),
    [],
  );
  const readers = files.filter((file) => /\bprocess\.env\b/.test(readFileSync(join(root, file), 'utf8')));
  assert.deepEqual(readers, ['src/platform/config.ts']);
});

test('an operation is run by invoke alone', () => {
  const runners = files.filter((file) => /\boperation\.run\(/.test(readFileSync(join(root, file), 'utf8')));
  assert.deepEqual(runners, ['src/kernel/invoke.ts']);
});

test('no folder hides what it holds behind a word that says nothing', () => {
  const vague = files.filter((file) =>
    /(?:^|[/-])(?:utils?|helpers?|common|managers?|base|misc|data|info)(?:[./-]|$)/.test(relative('src', file)),
  );
  assert.deepEqual(vague, []);
});
