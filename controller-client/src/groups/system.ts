import { ADDRESS_MAX, FAMILIES, type Family } from 'sluice-gateway/net/family.js';
import {
  type Prefix,
  parsePrefix,
  prefixesOfInterval,
  prefixInterval,
  sortPrefixes,
} from 'sluice-gateway/net/prefix.js';
import type { SYSTEM_GROUPS } from 'sluice-gateway/policy/model.js';

type SystemGroup = (typeof SYSTEM_GROUPS)[number];

/**
 * What of the address space is not the public internet. Documentation blocks of IPv4 are left in: no policy
 * means them, and they stand for the internet in examples and tests.
 */
const NOT_PUBLIC: readonly string[] = [
  '0.0.0.0/8', // this network
  '10.0.0.0/8', // private
  '100.64.0.0/10', // shared, carrier-grade NAT
  '127.0.0.0/8', // loopback
  '169.254.0.0/16', // link-local
  '172.16.0.0/12', // private
  '192.168.0.0/16', // private
  '224.0.0.0/4', // multicast
  '240.0.0.0/4', // reserved, broadcast
  // Of IPv6 only 2000::/3 is global unicast; fc00::/7, fe80::/10, ff00::/8, ::1, 64:ff9b::/96 lie outside.
  '::/3',
  '4000::/2',
  '8000::/1',
  '2001::/23', // protocol assignments, Teredo among them
  '2001:db8::/32', // documentation
  '2002::/16', // 6to4: wraps an IPv4 address, a private one too
  '3fff::/20', // documentation
];

/** The fewest prefixes for a family without the given ones. */
function complement(family: Family, without: readonly Prefix[]): Prefix[] {
  const prefixes: Prefix[] = [];
  let next = 0n;
  for (const prefix of sortPrefixes(without)) {
    const { first, last } = prefixInterval(prefix);
    if (first > next) prefixes.push(...prefixesOfInterval({ family, first: next, last: first - 1n }));
    if (last >= next) next = last + 1n;
  }
  if (next <= ADDRESS_MAX[family]) {
    prefixes.push(...prefixesOfInterval({ family, first: next, last: ADDRESS_MAX[family] }));
  }
  return prefixes;
}

const notPublic = NOT_PUBLIC.map(parsePrefix);

/** What each system group holds, sorted, in the fewest prefixes. */
export const SYSTEM_PREFIXES: Readonly<Record<SystemGroup, readonly Prefix[]>> = {
  Anywhere: FAMILIES.map((family) => ({ family, value: 0n, length: 0 })),
  'Public Internet': FAMILIES.flatMap((family) =>
    complement(
      family,
      notPublic.filter((prefix) => prefix.family === family),
    ),
  ),
};
