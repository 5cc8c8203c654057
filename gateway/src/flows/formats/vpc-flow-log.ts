import type { Format } from '../format.js';
import type { FlowRecord } from '../record.js';
import {
  type EndsRecord,
  hasEnds,
  isIpv6,
  protocolNumber,
  refusedPackets,
  seconds,
  startOf,
} from './numbers.js';

/** One way of a flow, which is what a line tells. */
interface Way {
  readonly record: EndsRecord;
  readonly isOut: boolean;
  readonly packets: number;
  readonly bytes: number;
}

const ends = ({ record: { src, dst }, isOut }: Way) =>
  isOut ? { from: src, to: dst } : { from: dst, to: src };

/** AWS's fields that a gateway can tell, by their names in a flow log's format, without `${}`. */
const FIELDS = {
  version: () => 2,
  'account-id': ({ record }: Way) => record.src.account,
  'interface-id': ({ record }: Way) => record.gateway.replaceAll(/[^\w.-]/g, '_'),
  srcaddr: (way: Way) => ends(way).from.ip,
  dstaddr: (way: Way) => ends(way).to.ip,
  srcport: (way: Way) => ends(way).from.port ?? 0,
  dstport: (way: Way) => ends(way).to.port ?? 0,
  protocol: ({ record }: Way) => protocolNumber(record),
  packets: ({ packets }: Way) => packets,
  bytes: ({ bytes }: Way) => bytes,
  start: ({ record }: Way) => seconds(startOf(record)),
  end: ({ record }: Way) => seconds(record.time),
  action: ({ record }: Way) => (record.event === 'close' ? 'ACCEPT' : 'REJECT'),
  'log-status': () => 'OK',
  type: ({ record }: Way) => (isIpv6(record) ? 'IPv6' : 'IPv4'),
  'pkt-srcaddr': (way: Way) => ends(way).from.ip,
  'pkt-dstaddr': (way: Way) => ends(way).to.ip,
  region: ({ record }: Way) => record.src.region,
  'flow-direction': ({ isOut }: Way) => (isOut ? 'egress' : 'ingress'),
  'resource-id': ({ record }: Way) => record.src.functions[0],
} as const satisfies Record<string, (way: Way) => string | number | undefined>;

export type VpcField = keyof typeof FIELDS;
export const VPC_FIELDS = Object.keys(FIELDS) as readonly VpcField[];

/** Version 2, in AWS's order. */
export const DEFAULT_FIELDS = VPC_FIELDS.slice(0, VPC_FIELDS.indexOf('log-status') + 1);

/** A space would end a field. */
const word = (value: string | number | undefined) =>
  String(value ?? '-').replaceAll(/[^\x21-\x7e]/g, '_') || '-';

/** AWS's word for records that are missing: the line has only times, and who tells. */
function skipData(fields: readonly VpcField[], { gateway, time, loss }: FlowRecord): string {
  const known: Partial<Record<VpcField, string | number>> = {
    version: 2,
    'interface-id': gateway.replaceAll(/[^\w.-]/g, '_'),
    start: seconds(loss?.since ?? time),
    end: seconds(time),
    'log-status': 'SKIPDATA',
  };
  return fields.map((field) => word(known[field])).join(' ');
}

/**
 * AWS VPC Flow Log lines with these fields: a line for each way of a connection that has ended, and one for a refusal. What
 * is still going on has no form: lines of a flow are added up by their readers.
 */
export function vpcFormat(fields: readonly VpcField[]): Format {
  const line = (way: Way) => fields.map((field) => word(FIELDS[field](way))).join(' ');
  return (record) => {
    if (record.event === 'loss') return record.loss === undefined ? undefined : skipData(fields, record);
    if (!hasEnds(record) || record.enforced !== true) return undefined;
    if (record.event === 'deny' || record.event === 'revoke')
      return line({ record, isOut: true, packets: refusedPackets(record), bytes: 0 });
    if (record.event !== 'close') return undefined;
    const { packets = { out: 0, in: 0 }, bytes = { out: 0, in: 0 } } = record;
    const out = line({ record, isOut: true, packets: packets.out, bytes: bytes.out });
    return packets.in === 0
      ? out
      : `${out}\n${line({ record, isOut: false, packets: packets.in, bytes: bytes.in })}`;
  };
}
