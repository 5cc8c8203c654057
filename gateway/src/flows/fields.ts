import { type Connection, type ConntrackEvent, TCP_STATES } from '../conntrack/decode.js';
import { IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP, type Tuple } from '../conntrack/tuple.js';
import { printAddress } from '../net/address.js';
import { DEFAULT_RULE_NUMBER, decodeMark } from '../nft/mark.js';
import { communityId } from './community-id.js';
import type { FlowRecord } from './record.js';
import type { RuleFacts } from './rule-book.js';

/** States in which both sides have ended the connection. */
const TCP_ENDED: ReadonlySet<string | undefined> = new Set(['LAST_ACK', 'TIME_WAIT', 'CLOSE']);

/** Others go by their number. */
export const PROTOCOL_NAMES: ReadonlyMap<number, 'TCP' | 'UDP' | 'ICMP'> = new Map([
  [IPPROTO_TCP, 'TCP'],
  [IPPROTO_UDP, 'UDP'],
  [IPPROTO_ICMP, 'ICMP'],
  [IPPROTO_ICMPV6, 'ICMP'],
]);

/**
 * RFC 3339 of the kernel's nanoseconds since 1970; undefined where it keeps none (`nf_conntrack_timestamp` =
 * 0).
 */
export function kernelTime(ns: bigint | undefined): string | undefined {
  return ns === undefined || ns === 0n ? undefined : new Date(Number(ns / 1_000_000n)).toISOString();
}

/** Protocol, ICMP message and Community ID. */
export function tupleFields(tuple: Tuple): Pick<FlowRecord, 'protocol' | 'icmp' | 'communityId'> {
  const { protocol, icmp } = tuple;
  return {
    protocol: PROTOCOL_NAMES.get(protocol) ?? protocol,
    ...(icmp !== undefined && { icmp: { type: icmp.type, code: icmp.code } }),
    communityId: communityId(tuple),
  };
}

/** The rule that a mark names. */
export function ruleFields(
  mark: number,
  rule: RuleFacts | undefined,
): Pick<FlowRecord, 'reason' | 'rule' | 'generation'> {
  const { generation, rule: number } = decodeMark(mark);
  return {
    reason: number === DEFAULT_RULE_NUMBER ? 'default' : 'rule',
    ...(rule !== undefined && { rule: ruleName(rule) }),
    generation,
  };
}

/** A rule as records name it. */
export function ruleName({ name, priority }: RuleFacts): NonNullable<FlowRecord['rule']> {
  return { name, ...(priority !== undefined && { priority }) };
}

/** What the source became, when replies go to something else than the source. */
export function natFields({ original, reply }: Connection): Pick<FlowRecord, 'nat'> {
  const { srcPort: port } = original;
  const { dst: address, dstPort } = reply;
  if (address.value === original.src.value && dstPort === port) return {};
  return { nat: { ip: printAddress(address), ...(dstPort !== undefined && { port: dstPort }) } };
}

/** Bytes and packets of both directions, where the kernel counted (`nf_conntrack_acct`). */
export function trafficFields({ counters }: Connection): Pick<FlowRecord, 'bytes' | 'packets'> {
  if (counters === undefined) return {};
  const { original, reply } = counters;
  return {
    bytes: { out: Number(original.bytes), in: Number(reply.bytes) },
    packets: { out: Number(original.packets), in: Number(reply.packets) },
  };
}

/**
 * Why an entry went away. Its DESTROY event has a time-out left only if it was deleted (Linux 5.8 and newer).
 */
export function endReason(event: ConntrackEvent, revoked: boolean): NonNullable<FlowRecord['endReason']> {
  if (revoked) return 'revoked';
  if (event.tcpState !== undefined && TCP_ENDED.has(TCP_STATES[event.tcpState])) return 'closed';
  return (event.timeoutSeconds ?? 0) > 0 ? 'deleted' : 'timeout';
}
