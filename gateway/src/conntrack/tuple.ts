import type { Address } from '../net/address.js';
import type { Family } from '../net/family.js';

/** Protocol numbers that tuples distinguish (IANA). */
export const IPPROTO_ICMP = 1;
export const IPPROTO_TCP = 6;
export const IPPROTO_UDP = 17;
export const IPPROTO_ICMPV6 = 58;

/** Which ICMP exchange: `id` is 0 where the type has none. */
export interface Icmp {
  readonly type: number;
  readonly code: number;
  readonly id: number;
}

/** One direction of a connection. Ports and `icmp` are undefined for protocols without them. */
export interface Tuple {
  readonly src: Address;
  readonly dst: Address;
  readonly protocol: number;
  readonly srcPort: number | undefined;
  readonly dstPort: number | undefined;
  readonly icmp: Icmp | undefined;
}

/** As packets of the other direction have it, where nothing is translated. */
export const reversed = (tuple: Tuple): Tuple => ({
  ...tuple,
  src: tuple.dst,
  dst: tuple.src,
  srcPort: tuple.dstPort,
  dstPort: tuple.srcPort,
});

/** Four or sixteen network-order bytes; throws RangeError for a view that ends before them. */
export function readAddressAt(view: DataView, at: number, family: Family): Address {
  if (family === 4) return { family, value: BigInt(view.getUint32(at)) };
  return { family, value: (view.getBigUint64(at) << 64n) | view.getBigUint64(at + 8) };
}
