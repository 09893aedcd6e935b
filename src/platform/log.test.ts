import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const module = fileURLToPath(new URL('./log.ts', import.meta.url));

/** What a process that runs that code with `log` wrote to standard error and standard output. */
function run(level: string, code: string): { lines: Record<string, unknown>[]; stdout: string } {
  const script = `import { openLog } from ${JSON.stringify(module)}; const log = openLog('${level}'); ${code}; log.flush();`;
  const { stderr, stdout } = spawnSync(process.execPath, ['--input-type=module', '--eval', script], {
    encoding: 'utf8',
  });
  return {
    lines: stderr
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line)),
    stdout,
  };
}

test('a line is one JSON object on standard error, with level, time and message around the fields', () => {
  const { lines, stdout } = run(
    'info',
    `log.info({ a: 1, gone: undefined, text: 'x"\\n' }, 'done'); log.info({}, 'bare')`,
  );
  assert.equal(stdout, '');
  const [first, second] = lines;
  assert.match(String(first?.['time']), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  assert.deepEqual({ ...first, time: 0 }, { level: 'info', time: 0, a: 1, text: 'x"\n', msg: 'done' });
  assert.deepEqual(Object.keys(second ?? {}), ['level', 'time', 'msg']);
});

test('lines below the level are not written; silent writes none', () => {
  const code = `log.debug({}, 'd'); log.info({}, 'i'); log.warn({}, 'w'); log.error({}, 'e')`;
  assert.deepEqual(
    run('warn', code).lines.map((line) => line['msg']),
    ['w', 'e'],
  );
  assert.deepEqual(run('silent', code).lines, []);
});

test('an error shows its code, stack and causes, and nothing else that hangs on it', () => {
  const code = `const cause = Object.assign(new Error('inner'), { code: '23505', detail: 'Key (email)=(a@b.c)' });
    const loop = new Error('outer', { cause }); cause.cause = loop; log.error({ err: loop }, 'failed')`;
  const [line] = run('info', code).lines;
  const err = line?.['err'] as { message: string; stack: string; cause: { code: string } };
  assert.equal(err.message, 'outer');
  assert.match(err.stack, /Error: outer/);
  assert.equal(err.cause.code, '23505');
  assert.ok(!JSON.stringify(line).includes('a@b.c'));
});
