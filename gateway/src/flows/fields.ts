import { type Connection, type ConntrackEvent, TCP_STATES } from '../conntrack/decode.js';
import { IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP, type Tuple } from '../conntrack/tuple.js';
import { printAddress } from '../net/address.js';
import { DEFAULT_RULE_NUMBER, decodeMark } from '../nft/mark.js';
import { destinationField, sourceField } from './attribute.js';
import { communityId } from './community-id.js';
import type { Connection as Known } from './connections.js';
import { once } from './once.js';
import { FLOW_SCHEMA, type FlowRecord } from './record.js';
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

/** Texts of the seconds that were asked for lately, by their last bits. */
const SECONDS = 256;
const prefixes: { readonly second: number; readonly text: string }[] = [];

/** RFC 3339, UTC, with milliseconds, of milliseconds since 1970. What is of one second shares its text. */
export function isoTime(ms: number): string {
  const second = Math.floor(ms / 1_000);
  let prefix = prefixes[second % SECONDS];
  if (prefix?.second !== second) {
    prefix = { second, text: new Date(second * 1_000).toISOString().slice(0, -4) };
    prefixes[second % SECONDS] = prefix;
  }
  const rest = ms - second * 1_000;
  return `${prefix.text}${rest < 10 ? '00' : rest < 100 ? '0' : ''}${rest}Z`;
}

export type TupleFields = Pick<FlowRecord, 'protocol' | 'icmp' | 'communityId'>;

/** Protocol, ICMP message and Community ID. */
export function tupleFields(tuple: Tuple): TupleFields {
  const { protocol, icmp } = tuple;
  return {
    protocol: PROTOCOL_NAMES.get(protocol) ?? protocol,
    icmp: icmp && { type: icmp.type, code: icmp.code },
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
    rule: rule && ruleName(rule),
    generation,
  };
}

/** A rule as records name it. */
export const ruleName = once(
  ({ name, priority }: RuleFacts): NonNullable<FlowRecord['rule']> => ({
    name,
    ...(priority !== undefined && { priority }),
  }),
);

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
    bytes: { out: original.bytes, in: reply.bytes },
    packets: { out: original.packets, in: reply.packets },
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

const startText = ({ startMs }: Known) => (startMs === undefined ? undefined : isoTime(startMs));

/** Who a connection is between. */
export function endFields({
  original,
  source,
  destination,
}: Known): Required<Pick<FlowRecord, 'src' | 'dst'>> {
  return {
    src: sourceField(original.src, original.srcPort, source),
    dst: destinationField(original.dst, original.dstPort, destination),
  };
}

/** What is known of a connection from its beginning. */
export function connectionFields(known: Known): Partial<FlowRecord> {
  return { start: startText(known), ...endFields(known), ...tupleFields(known.original) };
}

/**
 * A record of a connection that a rule permits. One literal, of one shape: these are nearly all the records there are, by
 * the hundred thousand a second.
 */
export function permittedRecord(input: {
  readonly gateway: string;
  readonly event: 'open' | 'update' | 'close';
  readonly time: string;
  readonly connection: Known;
  readonly kernel: Connection | undefined;
  readonly fields: Partial<FlowRecord>;
}): FlowRecord {
  const { gateway, event, time, connection, kernel, fields } = input;
  const { protocol, icmp, communityId } = tupleFields(connection.original);
  const { reason, rule, generation } = ruleFields(connection.mark, connection.rule);
  const { src, dst } = endFields(connection);
  return {
    schema: FLOW_SCHEMA,
    time,
    event,
    gateway,
    verdict: 'PERMIT',
    enforced: true,
    reason,
    rule,
    generation,
    start: fields.start ?? startText(connection),
    end: fields.end,
    src,
    dst,
    protocol,
    icmp,
    communityId,
    nat: kernel && natFields(kernel).nat,
    bytes: fields.bytes,
    packets: fields.packets,
    endReason: fields.endReason,
  };
}
