import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import { FAILURES_TO_OPEN, guardSource, HALF_OPEN_AFTER_MS } from './guarded-source.ts';
import { type FailureReason, type PriceSource, type Quote, SourceError } from './price-source.ts';
import { type Asset, assets } from './symbols.ts';

const asset = assets[0] as Asset;
const signal = new AbortController().signal;
const quote: Quote = { name: 'fake', price: '1', asOf: new Date(0) };

/** A source whose answers the test gives, behind a guard, with everything that the guard told. */
function setUp(options: { timeoutMs?: number } = {}) {
  const outcomes: (FailureReason | 'ok')[] = [];
  const fake = { calls: 0, answer: async (_signal: AbortSignal): Promise<Quote> => quote };
  const source: PriceSource = {
    name: 'fake',
    knows: () => true,
    fetchPrice: (_asset, _currency, given) => {
      fake.calls++;
      return fake.answer(given);
    },
  };
  const guarded = guardSource(source, { ...options, observe: (_source, outcome) => outcomes.push(outcome) });
  const ask = () => guarded.fetchPrice(asset, 'USD', signal);
  return { fake, ask, outcomes };
}

const fails = (reason: FailureReason) => ({ name: 'SourceError', source: 'fake', reason });
const down = () => Promise.reject(new SourceError('fake', 'unreachable'));

test('after consecutive failures nobody asks upstream until the pause is over, and then one alone', async () => {
  const { fake, ask, outcomes } = setUp();
  mock.timers.enable({ apis: ['Date'], now: 1_000_000 });
  try {
    fake.answer = down;
    for (let i = 0; i < FAILURES_TO_OPEN; i++) await assert.rejects(ask(), fails('unreachable'));
    for (let i = 0; i < 100; i++) await assert.rejects(ask(), fails('breaker_open'));
    assert.equal(fake.calls, FAILURES_TO_OPEN);

    mock.timers.tick(HALF_OPEN_AFTER_MS);
    const probe = Promise.withResolvers<Quote>();
    fake.answer = () => probe.promise;
    const first = ask();
    for (let i = 0; i < 100; i++) await assert.rejects(ask(), fails('breaker_open'));
    assert.equal(fake.calls, FAILURES_TO_OPEN + 1);
    probe.reject(new SourceError('fake', 'status'));
    await assert.rejects(first, fails('status'));
    await assert.rejects(ask(), fails('breaker_open'));

    mock.timers.tick(HALF_OPEN_AFTER_MS);
    fake.answer = async () => quote;
    assert.equal(await ask(), quote);
    assert.equal(await ask(), quote);
    assert.equal(fake.calls, FAILURES_TO_OPEN + 3);
    assert.deepEqual(outcomes.slice(-3), ['breaker_open', 'ok', 'ok']);
  } finally {
    mock.timers.reset();
  }
});

test('an answer between failures starts the count again', async () => {
  const { fake, ask } = setUp();
  for (let round = 0; round < 3; round++) {
    fake.answer = down;
    for (let i = 0; i < FAILURES_TO_OPEN - 1; i++) await assert.rejects(ask(), fails('unreachable'));
    fake.answer = async () => quote;
    assert.equal(await ask(), quote);
  }
});

test('what a source does not list never opens the breaker for the rest', async () => {
  const { fake, ask } = setUp();
  fake.answer = () => Promise.reject(new SourceError('fake', 'not_listed'));
  for (let i = 0; i < 3 * FAILURES_TO_OPEN; i++) await assert.rejects(ask(), fails('not_listed'));
  assert.equal(fake.calls, 3 * FAILURES_TO_OPEN);
});

test('a source that hangs is given up, told so, and counted as a failure', async () => {
  const { fake, ask, outcomes } = setUp({ timeoutMs: 5 });
  const told: boolean[] = [];
  fake.answer = (given) => {
    given.addEventListener('abort', () => told.push(true));
    return new Promise(() => undefined);
  };
  for (let i = 0; i < FAILURES_TO_OPEN; i++) await assert.rejects(ask(), fails('timeout'));
  await assert.rejects(ask(), fails('breaker_open'));
  assert.equal(told.length, FAILURES_TO_OPEN);
  assert.equal(outcomes.length, FAILURES_TO_OPEN + 1);
});

test('whatever else is thrown becomes an error of the source', async () => {
  const { fake, ask } = setUp();
  fake.answer = () => Promise.reject(new TypeError('a bug'));
  await assert.rejects(ask(), { ...fails('unreachable'), cause: new TypeError('a bug') });
});
