import { BlockList, isIP } from 'node:net';

/** Lists compiled so far, by the list itself: a cached principal keeps its own. */
const compiled = new WeakMap<readonly string[], BlockList>();

/**
 * Whether the address lies in one of those networks. An IPv4 address that a socket writes as IPv6 counts as what it is; no
 * address at all lies nowhere.
 */
export function isAllowedAddress(cidrs: readonly string[], address: string | null): boolean {
  if (address === null) return false;
  const version = isIP(address);
  if (version === 0) return false;
  return listOf(cidrs).check(address, version === 4 ? 'ipv4' : 'ipv6');
}

function listOf(cidrs: readonly string[]): BlockList {
  let list = compiled.get(cidrs);
  if (list === undefined) {
    list = new BlockList();
    for (const cidr of cidrs) {
      const [network = '', prefix] = cidr.split('/');
      list.addSubnet(network, Number(prefix), isIP(network) === 4 ? 'ipv4' : 'ipv6');
    }
    compiled.set(cidrs, list);
  }
  return list;
}
