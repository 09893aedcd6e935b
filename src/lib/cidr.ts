// Networks in CIDR notation: read, written in one canonical form, and compared. That form is the one in which PostgreSQL
// writes its type `cidr`. IPv4 networks written as IPv6 (::ffff:0:0/96 and below) are the IPv4 networks they stand for.
import { isIP } from 'node:net';

interface Network {
  readonly version: 4 | 6;
  /** The first address as a number; no bit is set beyond the prefix. */
  readonly first: bigint;
  readonly prefix: number;
}

/** What a text is as a network: its canonical form, or why it is none. */
export type CidrReading = { readonly cidr: string } | { readonly problem: string };

const BITS = { 4: 32, 6: 128 } as const;
const GROUP_BITS = 16n;
const GROUPS = 8;
const GROUP_MASK = 0xffffn;
/** How long the prefix of all IPv4 addresses is when they are written as IPv6, and what stands in it. */
const MAPPED_PREFIX = 96;
const MAPPED = 0xffffn;

/**
 * Reads an IPv4 or IPv6 network, or a single address. A network whose address has bits set beyond its prefix is refused,
 * naming the network that it lies in: one of the two numbers is a mistake, and only its author knows which.
 */
export function readCidr(text: string): CidrReading {
  const [address = '', length, ...rest] = text.split('/');
  const version = isIP(address);
  if ((version !== 4 && version !== 6) || address.includes('%') || rest.length > 0) return notOne;
  const bits = BITS[version];
  if (length !== undefined && !/^(?:0|[1-9]\d{0,2})$/.test(length)) return notOne;
  const prefix = length === undefined ? bits : Number(length);
  if (prefix > bits) return { problem: `has a prefix longer than ${bits} bits` };
  const number = version === 4 ? readV4(address) : readV6(address);
  const first = withoutHostBits(number, bits - prefix);
  const cidr = write(unmapped({ version, first, prefix }));
  return first === number ? { cidr } : { problem: `has bits set beyond its prefix; the network is ${cidr}` };
}

const notOne: CidrReading = { problem: 'must be an IPv4 or IPv6 network such as 192.0.2.0/24, or a single address' };

/**
 * Whether every network lies within one of the others. All must be canonical. A network that several others cover only
 * together counts as outside.
 */
export function liesWithin(networks: readonly string[], others: readonly string[]): boolean {
  const outer = others.map(parse);
  return networks.map(parse).every((inner) => outer.some((network) => contains(network, inner)));
}

function contains(outer: Network, inner: Network): boolean {
  if (outer.version !== inner.version || outer.prefix > inner.prefix) return false;
  return withoutHostBits(inner.first, BITS[outer.version] - outer.prefix) === outer.first;
}

function parse(cidr: string): Network {
  const [address = '', prefix] = cidr.split('/');
  const version = isIP(address) === 4 ? 4 : 6;
  return { version, first: version === 4 ? readV4(address) : readV6(address), prefix: Number(prefix) };
}

function withoutHostBits(address: bigint, hostBits: number): bigint {
  return (address >> BigInt(hostBits)) << BigInt(hostBits);
}

function unmapped(network: Network): Network {
  const { version, first, prefix } = network;
  if (version === 4 || prefix < MAPPED_PREFIX || first >> BigInt(BITS[4]) !== MAPPED) return network;
  return { version: 4, first: BigInt.asUintN(BITS[4], first), prefix: prefix - MAPPED_PREFIX };
}

function readV4(address: string): bigint {
  return address.split('.').reduce((number, byte) => number * 256n + BigInt(byte), 0n);
}

function readV6(address: string): bigint {
  // The last two groups may be written as an IPv4 address.
  const tail = /[^:]*\.[^:]*$/.exec(address)?.[0];
  const v4 = tail === undefined ? 0n : readV4(tail);
  const inGroups =
    tail === undefined
      ? address
      : `${address.slice(0, -tail.length)}${(v4 >> GROUP_BITS).toString(16)}:${(v4 & GROUP_MASK).toString(16)}`;
  const [head = [], end] = inGroups.split('::').map((part) => (part === '' ? [] : part.split(':')));
  const groups = end === undefined ? head : [...head, ...Array(GROUPS - head.length - end.length).fill('0'), ...end];
  return groups.reduce((number, group) => (number << GROUP_BITS) | BigInt(`0x${group}`), 0n);
}

function write({ version, first, prefix }: Network): string {
  return `${version === 4 ? writeV4(first) : writeV6(first)}/${prefix}`;
}

function writeV4(address: bigint): string {
  return [24n, 16n, 8n, 0n].map((shift) => (address >> shift) & 0xffn).join('.');
}

/** As RFC 5952 has it: the first longest run of two or more zero groups is left out. */
function writeV6(address: bigint): string {
  const groups = Array.from({ length: GROUPS }, (_, index) =>
    ((address >> (GROUP_BITS * BigInt(GROUPS - 1 - index))) & GROUP_MASK).toString(16),
  );
  const { at, length } = longestZeros(groups);
  // PostgreSQL writes ::102:304 in the old way, as ::1.2.3.4.
  if (at === 0 && length === GROUPS - 2) return `::${writeV4(address)}`;
  if (length < 2) return groups.join(':');
  return `${groups.slice(0, at).join(':')}::${groups.slice(at + length).join(':')}`;
}

function longestZeros(groups: readonly string[]): { at: number; length: number } {
  let longest = { at: 0, length: 0 };
  for (let at = 0; at < groups.length; at += 1) {
    let length = 0;
    while (groups[at + length] === '0') length += 1;
    if (length > longest.length) longest = { at, length };
  }
  return longest;
}
