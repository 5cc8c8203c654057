import { isIPv6 } from 'node:net';
import { IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP } from '../../conntrack/tuple.js';
import type { FlowRecord } from '../record.js';

/** A record of packets or connections whose ends are known: all but loss, and what was unreadable. */
export type EndsRecord = FlowRecord & {
  readonly [Key in 'src' | 'dst' | 'protocol']: NonNullable<FlowRecord[Key]>;
};

export function hasEnds(record: FlowRecord): record is EndsRecord {
  return record.src !== undefined && record.dst !== undefined && record.protocol !== undefined;
}

export const isIpv6 = ({ src }: EndsRecord): boolean => isIPv6(src.ip);

/** IANA's number of the protocol. */
export function protocolNumber(record: EndsRecord): number {
  switch (record.protocol) {
    case 'TCP':
      return IPPROTO_TCP;
    case 'UDP':
      return IPPROTO_UDP;
    case 'ICMP':
      return isIpv6(record) ? IPPROTO_ICMPV6 : IPPROTO_ICMP;
    default:
      return record.protocol;
  }
}

/** Of a record's time stamp. */
export const seconds = (time: string): number => Math.floor(Date.parse(time) / 1_000);

/** When what the record tells of began: for a single packet when it came. */
export const startOf = ({ start, time }: FlowRecord): string => start ?? time;

/** Packets of a refusal: the one that was logged, and those of its rule that the rate limit kept from the log. */
export const refusedPackets = ({ suppressed = 0 }: FlowRecord): number => 1 + suppressed;
