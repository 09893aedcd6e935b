import assert from 'node:assert/strict';
import { BlockList } from 'node:net';
import { test } from 'node:test';
import fc from 'fast-check';
import { liesWithin, readCidr } from './cidr.ts';

const canonical = (text: string): string => {
  const reading = readCidr(text);
  assert.ok('cidr' in reading, `${text}: ${JSON.stringify(reading)}`);
  return reading.cidr;
};
const problem = (text: string): string => {
  const reading = readCidr(text);
  assert.ok('problem' in reading, text);
  return reading.problem;
};

const v4Address = fc.ipV4();
// Mostly zeros, so that runs of them, and networks within each other, come up.
const group = fc.oneof(
  fc.constant('0'),
  fc.constantFrom('1', 'ffff', 'db8'),
  fc.stringMatching(/^[1-9a-f][0-9a-f]{0,3}$/),
);
const v6Address = fc.oneof(
  fc.ipV6(),
  fc.array(group, { minLength: 8, maxLength: 8 }).map((groups) => groups.join(':')),
);
const withPrefix = (address: fc.Arbitrary<string>, bits: number) =>
  fc.tuple(address, fc.integer({ min: 0, max: bits })).map(([text, prefix]) => `${text}/${prefix}`);
/** Networks in canonical form, made from any by taking the correction that a refusal names. */
const network = fc.oneof(withPrefix(v4Address, 32), withPrefix(v6Address, 128)).map((text) => {
  const reading = readCidr(text);
  return 'cidr' in reading ? reading.cidr : (reading.problem.split(' ').at(-1) ?? '');
});

function blockList(cidr: string): { check(address: string): boolean } {
  const [address = '', prefix] = cidr.split('/');
  const list = new BlockList();
  list.addSubnet(address, Number(prefix), address.includes(':') ? 'ipv6' : 'ipv4');
  return { check: (text) => list.check(text, text.includes(':') ? 'ipv6' : 'ipv4') };
}

test('networks and addresses have one form', () => {
  const forms: readonly [string, string][] = [
    ['192.0.2.0/24', '192.0.2.0/24'],
    ['192.0.2.7', '192.0.2.7/32'],
    ['0.0.0.0/0', '0.0.0.0/0'],
    ['2001:DB8:0:0:0:0:0:0/32', '2001:db8::/32'],
    ['2001:0db8::0001', '2001:db8::1/128'],
    ['::/0', '::/0'],
    ['::1', '::1/128'],
    ['1:0:0:2:0:0:0:3', '1:0:0:2::3/128'],
    ['1:0:2:3:4:5:6:7', '1:0:2:3:4:5:6:7/128'],
    ['::1.2.3.4', '::1.2.3.4/128'],
    ['::ffff:192.0.2.0/120', '192.0.2.0/24'],
    ['::ffff:c000:207', '192.0.2.7/32'],
    ['::ffff:0:0/96', '0.0.0.0/0'],
    ['64:ff9b::192.0.2.33', '64:ff9b::c000:221/128'],
  ];
  for (const [text, form] of forms) assert.equal(canonical(text), form, text);
});

test('what is no network is refused, and one with bits beyond its prefix is told which it lies in', () => {
  const wrong = ['', '/', '192.0.2', '192.0.2.0/', '192.0.2.0/024', '192.0.2.0/-1', '192.0.2.0/24/8', '010.0.0.0/8'];
  for (const text of [...wrong, 'fe80::1%eth0', 'fe80::%eth0/64', ' 192.0.2.0/24', 'example.com', '1::2::3', '1e3']) {
    assert.match(problem(text), /^must be an IPv4 or IPv6 network/, text);
  }
  assert.equal(problem('192.0.2.0/33'), 'has a prefix longer than 32 bits');
  assert.equal(problem('::/129'), 'has a prefix longer than 128 bits');
  assert.equal(problem('192.0.2.7/24'), 'has bits set beyond its prefix; the network is 192.0.2.0/24');
  assert.equal(problem('2001:db8::1/64'), 'has bits set beyond its prefix; the network is 2001:db8::/64');
  assert.equal(problem('::ffff:192.0.2.7/120'), 'has bits set beyond its prefix; the network is 192.0.2.0/24');
});

test('the canonical form is its own, and the same network to the address lists of Node', () => {
  fc.assert(
    fc.property(network, fc.oneof(v4Address, v6Address), (cidr, address) => {
      assert.equal(canonical(cidr), cidr);
      const [first = '', prefix = ''] = cidr.split('/');
      assert.ok(blockList(cidr).check(first));
      // Any other spelling of it reads the same.
      assert.equal(canonical(`${first.toUpperCase()}/${prefix}`), cidr);
      const inside = liesWithin([canonical(address)], [cidr]);
      if (inside) assert.ok(blockList(cidr).check(address));
      if (first.includes(':') === address.includes(':')) {
        assert.equal(inside, blockList(cidr).check(address), `${address} in ${cidr}`);
      }
    }),
    { numRuns: 2_000 },
  );
});

test('a network within another shares all its addresses with it, and whatever contains another has the shorter prefix', () => {
  let within = 0;
  fc.assert(
    fc.property(network, fc.nat(128), network, (one, shorter, stranger) => {
      const [address, prefix] = one.split('/');
      const reading = readCidr(`${address}/${Math.max(0, Number(prefix) - shorter)}`);
      const around = 'cidr' in reading ? reading.cidr : (reading.problem.split(' ').at(-1) ?? '');
      assert.ok(liesWithin([one], [around]), `${one} in ${around}`);
      assert.ok(liesWithin([one], [stranger, around]));
      assert.equal(liesWithin([around], [one]), around === one);
      if (!liesWithin([one], [stranger])) return;
      within += 1;
      assert.ok(blockList(stranger).check(address ?? ''));
      assert.ok(Number(stranger.split('/')[1]) <= Number(prefix));
    }),
    { numRuns: 2_000 },
  );
  assert.ok(within > 20, `${within} lay within a stranger`);
});

test('a list lies within another when each of its networks does; an empty one lies within any', () => {
  assert.equal(liesWithin(['192.0.2.0/25', '2001:db8::/48'], ['192.0.2.0/24', '2001:db8::/32']), true);
  assert.equal(liesWithin(['192.0.2.0/25', '198.51.100.0/24'], ['192.0.2.0/24']), false);
  assert.equal(liesWithin(['192.0.2.0/23'], ['192.0.2.0/24', '192.0.3.0/24']), false);
  assert.equal(liesWithin(['192.0.2.0/24'], ['::/0']), false);
  assert.equal(liesWithin([], []), true);
});
