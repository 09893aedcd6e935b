// One case: an input and a caller, sent over every transport that offers the operation, and all that has to hold after.
import assert from 'node:assert/strict';
import type { Principal } from '../../src/kernel/context.ts';
import type { Operation } from '../../src/kernel/operation.ts';
import { credentialsOf, type TestApplication } from './application.ts';
import type { Fields } from './operation-arbitraries.ts';
import { comparable, findDifference, isCapable, type Sent } from './property-agreement.ts';
import { type Carrier, isFields, type Style } from './property-answers.ts';
import type { OperationTally } from './property-tally.ts';
import type { Caller, World } from './property-world.ts';
import { referencesIn, resolveReferences } from './references.ts';

/**
 * A name that is one escaped character. JSON.parse of Node 26.10 takes one such name for another that it met before: after
 * `{"\\\\":true}` it reads `{"\\u0000":true}` as the former. No operation knows such a name, so it is refused either way.
 */
const escapedName = /"\\(?:u[0-9a-f]{4}|[^u])":/;

export interface Case {
  readonly input: unknown;
  readonly callerIndex: number;
  /** Whether the caller is one that is let through to `run`. */
  readonly isCapable: boolean;
  readonly style: Style;
}

export interface CaseParts {
  readonly app: TestApplication;
  readonly operation: Operation;
  readonly world: World;
  readonly carriers: readonly Carrier[];
  readonly tally: OperationTally;
  /** What `invoke` was given under a request id; undefined when it was not reached. */
  readonly given: (requestId: string) => { readonly input: unknown } | undefined;
  /** Whether `run` was reached under that request id. */
  readonly ran: (requestId: string) => boolean;
}

/** Times that reads are asked again where their answers differ: a minute may end, or a window slide, between two of them. */
const COMPARISONS_MAX = 3;

/** Makes the function that sends one case and asserts. */
export function createCaseRunner(parts: CaseParts): (given: Case) => Promise<void> {
  const { app, operation, world, carriers, tally } = parts;
  const capable = world.callers.filter((caller) => isCapable(operation, caller));
  const others = world.callers.filter((caller) => !capable.includes(caller));
  let state: Awaited<ReturnType<World['state']>> | undefined;

  return async function runCase({ input: described, callerIndex, isCapable: isLetThrough, style }) {
    const choice = isLetThrough || others.length === 0 ? capable : others;
    const caller = choice[callerIndex % choice.length];
    assert.ok(caller !== undefined, 'somebody has to call');
    const input = resolveReferences(described, world.lookUp);
    const target = isFields(input) && typeof input['id'] === 'string' ? world.liveKey(input['id']) : undefined;
    // Known to the cache beforehand, so that it is the revocation that ends it.
    if (target !== undefined && operation.name === 'keys.revoke') await app.bearer(target);
    const before = operation.readOnly ? undefined : (state ?? (await world.state()));
    // Known again only once the case has come out well.
    state = undefined;

    const sent = await sendAll(input, caller, style, true);
    const answers = sent.map(({ answer }) => answer);
    const succeeded = answers.filter(({ code }) => code === 'ok');
    for (const { text } of answers) assert.ok(!text.includes(world.foreignMark), "it shows another tenant's key");
    if (!isCapable(operation, { ...caller, exhausted: false })) {
      assert.equal(succeeded.length, 0, 'it works for somebody who may not');
    }
    if (referencesIn(described).some(({ kind, spelling }) => kind === 'foreignKey' && spelling === 'as it is')) {
      assert.equal(succeeded.length, 0, "it works on another tenant's key");
    }
    if (style.raw === null) await assertAgreement(sent, input, caller, style);

    if (operation.readOnly) return;
    const after = await world.state();
    if (succeeded.length === 0) assert.deepEqual(after, before, 'a refused write changed something');
    const made = operation.name === 'keys.create' ? succeeded.length : 0;
    assert.equal(after.keys, (before?.keys ?? 0) + made, 'keys were made that no answer tells of');
    // Of changes only the last one still stands.
    const onlyLast = operation.name === 'keys.update' || operation.name === 'keys.rotate';
    const standing = sent.filter(({ answer }) => answer.code === 'ok').slice(onlyLast ? -1 : 0);
    for (const one of standing) if (caller.principal !== null) await assertEffect(one, caller.principal);
    if (operation.name === 'keys.revoke' && succeeded.length > 0 && isFields(input) && target !== undefined) {
      await assert.rejects(app.bearer(target), { code: 'unauthenticated' }, 'a revoked key still works');
      await world.replace(String(input['id']));
      return;
    }
    if (operation.name === 'keys.rotate' && succeeded.length > 0 && isFields(input)) {
      await world.finishRotation(String(input['id']));
    }
    if (operation.name === 'keys.revoke_all' && succeeded.length > 0) {
      await world.revive();
      return;
    }
    state = after;
  };

  async function sendAll(input: unknown, caller: Caller, style: Style, isCounted: boolean): Promise<Sent[]> {
    const sent: Sent[] = [];
    for (const carrier of carriers) {
      if (!operation.transports.includes(carrier.transport)) continue;
      const sending = carrier.carry(operation, input, caller, style);
      if (typeof sending === 'string') {
        if (isCounted) tally.leftOut(carrier.transport, sending);
        continue;
      }
      const answer = await sending.send();
      const ran = parts.ran(answer.requestId);
      tally.answered(answer, caller, ran);
      if (isCounted) tally.sent(answer, ran);
      const given = parts.given(answer.requestId);
      if (
        given !== undefined &&
        sending.expected !== undefined &&
        !escapedName.test(JSON.stringify(sending.expected))
      ) {
        assert.deepEqual(
          given.input,
          sending.expected,
          `${carrier.transport} handed on another input than it was sent`,
        );
      }
      sent.push({ sending, answer });
    }
    return sent;
  }

  /** Whoever was given the same input has to answer the same. A read may be asked again: time passes between two calls. */
  async function assertAgreement(first: readonly Sent[], input: unknown, caller: Caller, style: Style): Promise<void> {
    let sent = first;
    for (let comparison = 1; ; comparison += 1) {
      const difference = findDifference(operation, caller, sent);
      if (difference === null) break;
      assert.ok(operation.readOnly && comparison < COMPARISONS_MAX, difference);
      sent = await sendAll(input, caller, style, false);
    }
    tally.compared(comparable(operation, first).length);
  }

  /** What was asked for has to be answered, what was answered to be kept, and a key that was given has to work. */
  async function assertEffect({ sending, answer: { output } }: Sent, principal: Principal): Promise<void> {
    if (!isFields(output) || !['keys.create', 'keys.update', 'keys.rotate'].includes(operation.name)) return;
    const { key, updatedAt: _one, lastUsedAt: _two, createdAt: _three, ...rest } = output;
    // What a rotation says of itself and of the secrets before it is no field of the key.
    const { previous: _four, effectiveOn: _five, of: _six, ms: _seven, ...shown } = rest;
    const { expiresAt: _moment, id: _spelling, ...asked } = sending.expected ?? {};
    const answered = Object.keys(asked).filter((name) => Object.hasOwn(output, name));
    for (const name of answered) assert.deepEqual(output[name], asked[name], `${name} is not what was asked for`);
    const kept = await app.output<Fields>('keys.get', principal, { id: output['id'] });
    assert.deepEqual(Object.fromEntries(Object.keys(shown).map((name) => [name, kept[name]])), shown);
    if (typeof key !== 'string') return;
    // From wherever it may be used; the first address of a network is one of them.
    const networks = Array.isArray(kept['allowedCidrs']) ? kept['allowedCidrs'] : [];
    const ipAddress = String(networks[0] ?? '192.0.2.1').split('/')[0] ?? null;
    const used = await app.app.authenticate(credentialsOf({ authorization: `Bearer ${key}` }, { ipAddress }));
    assert.equal(used.key?.id, output['id'], 'a new key does not work');
  }
}
