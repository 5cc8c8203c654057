import type { FlowRecord } from '../flows/record.js';
import type { Action } from '../policy/model.js';

/** A connection, or a part of its story, as a log tells it: what simulate and learn go by. */
export interface RecordedFlow {
  /** RFC 3339, or seconds since 1970 as VPC Flow Logs have them. */
  readonly time: string;
  readonly src: string;
  readonly dst: string;
  readonly protocol: number;
  /** 0 where the protocol has none. */
  readonly dstPort: number;
  readonly verdict: Action;
  /** Name of the rule that decided; undefined where the log does not say. */
  readonly rule: string | undefined;
  /** False: what a MONITOR rule would have decided. */
  readonly enforced: boolean;
  /** ARNs of functions and names of groups of the source, where the log knows them. */
  readonly functions: readonly string[];
  readonly groups: readonly string[] | undefined;
  /** How many connections this record is the first one of: later records of the same connection count none. */
  readonly connections: number;
  readonly bytesOut: number;
  readonly bytesIn: number;
}

/** Why a record says nothing about policy. */
export const SKIP_REASONS = ['anomaly', 'loss', 'reply', 'empty', 'unreadable'] as const;
export type SkipReason = (typeof SKIP_REASONS)[number];

/** Reads one line: a flow, or why there is none. */
export type LineReader = (line: string) => RecordedFlow | SkipReason;

const PROTOCOL_OF = { TCP: 6, UDP: 17 } as const;
const ICMP_OF_FAMILY = { 4: 1, 6: 58 } as const;
const NO_NAMES: readonly string[] = [];

function protocolNumber(protocol: FlowRecord['protocol'], dst: string): number {
  if (protocol === 'ICMP') return ICMP_OF_FAMILY[dst.includes(':') ? 6 : 4];
  return typeof protocol === 'string' ? PROTOCOL_OF[protocol] : (protocol ?? 0);
}

/** Events that begin the story of a connection. The rest of it adds bytes. */
const BEGINNINGS: ReadonlySet<string> = new Set(['open', 'deny']);

/** A record of ours, not checked in every field: what is not needed may be anything. */
export const readOwnRecord: LineReader = (line) => {
  let record: Partial<FlowRecord> | null;
  try {
    record = JSON.parse(line) as Partial<FlowRecord> | null;
  } catch {
    return 'unreadable';
  }
  if (record === null || typeof record !== 'object' || record.schema !== 'sluice.flow/1') return 'unreadable';
  const { event, verdict, reason, src, dst, protocol, rule, bytes, enforced, time = '' } = record;
  if (event === 'loss') return 'loss';
  if (reason !== 'rule' && reason !== 'default') return 'anomaly';
  if (event === undefined || verdict === undefined || protocol === undefined) return 'unreadable';
  if (typeof src?.ip !== 'string' || typeof dst?.ip !== 'string') return 'unreadable';
  return {
    ...{ time, src: src.ip, dst: dst.ip, verdict, enforced: enforced !== false, rule: rule?.name },
    protocol: protocolNumber(protocol, dst.ip),
    dstPort: dst.port ?? 0,
    functions: src.functions ?? NO_NAMES,
    groups: src.groups ?? NO_NAMES,
    connections: BEGINNINGS.has(event) ? 1 : 0,
    bytesOut: bytes?.out ?? 0,
    bytesIn: bytes?.in ?? 0,
  };
};

/** The fields of VPC Flow Logs version 2, where a file has no header. */
const VPC_DEFAULT =
  'version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status';
const VPC_NEEDED = ['dstaddr', 'dstport', 'protocol', 'srcaddr', 'action'];
const SYN_ACK = 0x12;

/** Whether a line names the fields of VPC Flow Logs. */
const isVpcHeader = (line: string) => /(?:^|\s)srcaddr(?:\s|$)/.test(line);

/**
 * Reads VPC Flow Logs: of version 2, or of any fields by their header. Each connection is there twice, once each way:
 * what goes back to who connected is a reply. That is told by `flow-direction` or `tcp-flags`; without them, whether
 * `isSource` knows the source, and where it knows both ends the one with the higher port connected.
 */
export function vpcReader(header: string, isSource: (ip: string) => boolean): LineReader {
  const names = (isVpcHeader(header) ? header : VPC_DEFAULT).trim().split(/\s+/);
  const missing = VPC_NEEDED.filter((name) => !names.includes(name));
  if (missing.length > 0) throw new Error(`VPC Flow Logs lack the field ${missing.join(', ')}`);
  const indexes = new Map(names.map((name, index) => [name, index]));
  return (line) => {
    const cells = line.trim().split(' ');
    const cell = (name: string) => {
      const text = cells[indexes.get(name) ?? -1];
      return text === undefined || text === '-' ? undefined : text;
    };
    if (cells.length !== names.length) return 'unreadable';
    const action = cell('action');
    if (action === undefined) return 'empty';
    const src = cell('pkt-srcaddr') ?? cell('srcaddr');
    const dst = cell('pkt-dstaddr') ?? cell('dstaddr');
    const protocol = Number(cell('protocol'));
    const dstPort = Number(cell('dstport') ?? 0);
    if (src === undefined || dst === undefined || !(protocol >= 0) || !(dstPort >= 0)) return 'unreadable';
    const isReply = () => {
      const direction = cell('flow-direction');
      if (direction !== undefined) return direction === 'ingress';
      const flags = cell('tcp-flags');
      if (flags !== undefined && (Number(flags) & SYN_ACK) === SYN_ACK) return true;
      if (!isSource(src)) return true;
      return isSource(dst) && Number(cell('srcport') ?? 0) < dstPort;
    };
    if (isReply()) return 'reply';
    return {
      ...{ time: cell('start') ?? '', src, dst, protocol, dstPort, rule: undefined, enforced: true },
      verdict: action === 'ACCEPT' ? 'PERMIT' : 'DENY',
      functions: NO_NAMES,
      groups: undefined,
      connections: 1,
      bytesOut: Number(cell('bytes') ?? 0),
      bytesIn: 0,
    };
  };
}

/** The reader for a file that begins with this line, and whether the line is a header. Throws for neither format. */
export function readerFor(
  first: string,
  isSource: (ip: string) => boolean,
): { readonly read: LineReader; readonly isHeader: boolean } {
  if (first.trimStart().startsWith('{')) return { read: readOwnRecord, isHeader: false };
  const isHeader = isVpcHeader(first);
  if (isHeader || /^\d+ /.test(first)) return { read: vpcReader(first, isSource), isHeader };
  throw new Error('it begins with neither a flow record of ours nor VPC Flow Logs');
}
