import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import fc from 'fast-check';
import { monthStart, nextMonthStart } from './month.ts';

const iso = (ms: number) => new Date(ms).toISOString();

test('months begin at midnight UTC of the first, leap years and turns of the year included', () => {
  const cases = [
    ['2026-01-01T00:00:00.000Z', '2026-01-01T00:00:00.000Z', '2026-02-01T00:00:00.000Z'],
    ['2026-01-31T23:59:59.999Z', '2026-01-01T00:00:00.000Z', '2026-02-01T00:00:00.000Z'],
    ['2026-02-28T23:59:59.999Z', '2026-02-01T00:00:00.000Z', '2026-03-01T00:00:00.000Z'],
    ['2024-02-29T12:00:00.000Z', '2024-02-01T00:00:00.000Z', '2024-03-01T00:00:00.000Z'],
    ['2000-02-29T00:00:00.000Z', '2000-02-01T00:00:00.000Z', '2000-03-01T00:00:00.000Z'],
    ['2100-02-28T23:59:59.999Z', '2100-02-01T00:00:00.000Z', '2100-03-01T00:00:00.000Z'],
    ['2025-12-31T23:59:59.999Z', '2025-12-01T00:00:00.000Z', '2026-01-01T00:00:00.000Z'],
    ['0050-12-15T00:00:00.000Z', '0050-12-01T00:00:00.000Z', '0051-01-01T00:00:00.000Z'],
  ] as const;
  for (const [at, start, next] of cases) {
    assert.equal(iso(monthStart(Date.parse(at))), start);
    assert.equal(iso(nextMonthStart(Date.parse(at))), next);
  }
});

test('every moment lies in exactly one month of 28 to 31 whole days', (t) => {
  const numRuns = 2_000;
  fc.assert(
    fc.property(fc.integer({ min: Date.UTC(1970), max: Date.UTC(2400) }), (ms) => {
      const start = monthStart(ms);
      const next = nextMonthStart(ms);
      assert.ok(start <= ms && ms < next);
      assert.ok([28, 29, 30, 31].includes((next - start) / 86_400_000));
      assert.equal(monthStart(next - 1), start);
      assert.equal(monthStart(next), next);
    }),
    { numRuns },
  );
  t.diagnostic(`${numRuns} moments`);
});

test("the machine's time zone and its summer time change nothing", () => {
  // Summer time ends or begins in one of the zones at the first three; the others lie beside the turn of a month.
  const moments = [
    '2026-03-29T01:30:00Z',
    '2026-10-25T01:30:00Z',
    '2026-11-01T06:30:00Z',
    '2026-04-01T00:00:00Z',
    '2026-03-31T23:59:59Z',
  ];
  const module = new URL('./month.ts', import.meta.url).href;
  const script = `
    const { monthStart, nextMonthStart } = await import(${JSON.stringify(module)});
    const moments = ${JSON.stringify(moments)};
    const answers = moments.map(Date.parse).map((ms) => [monthStart(ms), nextMonthStart(ms)]);
    process.stdout.write(JSON.stringify({ offset: new Date(0).getTimezoneOffset(), answers }));
  `;
  const expected = [
    ['2026-03', '2026-04'],
    ['2026-10', '2026-11'],
    ['2026-11', '2026-12'],
    ['2026-04', '2026-05'],
    ['2026-03', '2026-04'],
  ].map((months) => months.map((month) => Date.parse(`${month}-01T00:00:00Z`)));
  const offsets = new Set<number>();
  for (const zone of ['Europe/Berlin', 'America/New_York', 'Pacific/Kiritimati']) {
    const output = execFileSync(process.execPath, ['--input-type=module', '--eval', script], {
      env: { TZ: zone },
      encoding: 'utf8',
    });
    const { offset, answers } = JSON.parse(output);
    assert.deepEqual(answers, expected, zone);
    offsets.add(offset);
  }
  assert.equal(offsets.size, 3, 'the child processes must really run in their zones');
});

test('what is no time is an error', () => {
  for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, 8.64e15 + 1]) {
    assert.throws(() => monthStart(bad), RangeError);
    assert.throws(() => nextMonthStart(bad), RangeError);
  }
  assert.throws(() => nextMonthStart(8.64e15), RangeError);
});
