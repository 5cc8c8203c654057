import type { Address } from '../net/address.js';
import type { Family } from '../net/family.js';
import type { Message } from '../netlink/reader.js';
import * as c from './constants.js';
import { type Icmp, readAddressAt, type Tuple } from './tuple.js';
import { checkSize, walkAttributes } from './walk.js';

/** `IPS_*` of linux/netfilter/nf_conntrack_common.h: bits of `Connection.status`. */
export const IPS_SEEN_REPLY = 1 << 1;
export const IPS_ASSURED = 1 << 2;
export const IPS_SRC_NAT = 1 << 4;
export const IPS_DST_NAT = 1 << 5;

/** `enum tcp_conntrack` of linux/netfilter/nf_conntrack_tcp.h, in its order. */
export const TCP_STATES = [
  'NONE',
  'SYN_SENT',
  'SYN_RECV',
  'ESTABLISHED',
  'FIN_WAIT',
  'CLOSE_WAIT',
  'LAST_ACK',
  'TIME_WAIT',
  'CLOSE',
  'SYN_SENT2',
] as const;

/** What passed in one direction. */
export interface Counters {
  readonly packets: bigint;
  readonly bytes: bigint;
}

/** One entry of the connection table. What is optional in the message is undefined where it is absent. */
export interface Connection {
  /** The kernel's number for the entry; with the tuple it names one connection and not its successor. */
  readonly id: number;
  /** Bits `IPS_*`. */
  readonly status: number;
  /** 0 where the message has none: the kernel leaves out a mark of 0. */
  readonly mark: number;
  readonly zone: number;
  readonly family: Family;
  readonly protocol: number;
  /** As the first packet had it. */
  readonly original: Tuple;
  /** As answers have it: the original reversed, after NAT. */
  readonly reply: Tuple;
  /** With `nf_conntrack_acct` on, in dumps and when the entry is destroyed. */
  readonly counters: { readonly original: Counters; readonly reply: Counters } | undefined;
  /**
   * Nanoseconds since 1970, with `nf_conntrack_timestamp` on: in dumps the start, when it is destroyed both.
   */
  readonly startNs: bigint | undefined;
  readonly stopNs: bigint | undefined;
  /** When the event happened, likewise; from Linux 6.14. */
  readonly eventNs: bigint | undefined;
  readonly timeoutSeconds: number | undefined;
  /** Index into `TCP_STATES`. */
  readonly tcpState: number | undefined;
}

/** What happened to a connection: the events of the three groups. */
export interface ConntrackEvent extends Connection {
  readonly kind: 'new' | 'update' | 'destroy';
}

/** Size of `struct nfgenmsg`, in bytes. */
const NFGENMSG_BYTES = 4;

function missing(what: string): RangeError {
  return new RangeError(`Cannot decode connection: it has no ${what}`);
}

function decodeTuple(view: DataView, from: number, to: number): Tuple {
  let src: Address | undefined;
  let dst: Address | undefined;
  let protocol: number | undefined;
  let srcPort: number | undefined;
  let dstPort: number | undefined;
  let icmp: Icmp | undefined;
  const visitIp = (type: number, start: number, end: number) => {
    if (type < c.CTA_IP_V4_SRC || type > c.CTA_IP_V6_DST) return;
    const family = type <= c.CTA_IP_V4_DST ? 4 : 6;
    checkSize(type, start, end, family === 4 ? 4 : 16);
    const address = readAddressAt(view, start, family);
    if (type === c.CTA_IP_V4_SRC || type === c.CTA_IP_V6_SRC) src = address;
    else dst = address;
  };
  const visitProtocol = (type: number, start: number, end: number) => {
    switch (type) {
      case c.CTA_PROTO_NUM:
        checkSize(type, start, end, 1);
        protocol = view.getUint8(start);
        break;
      case c.CTA_PROTO_SRC_PORT:
        checkSize(type, start, end, 2);
        srcPort = view.getUint16(start);
        break;
      case c.CTA_PROTO_DST_PORT:
        checkSize(type, start, end, 2);
        dstPort = view.getUint16(start);
        break;
      case c.CTA_PROTO_ICMP_ID:
      case c.CTA_PROTO_ICMPV6_ID:
        checkSize(type, start, end, 2);
        icmp = { type: icmp?.type ?? 0, code: icmp?.code ?? 0, id: view.getUint16(start) };
        break;
      case c.CTA_PROTO_ICMP_TYPE:
      case c.CTA_PROTO_ICMPV6_TYPE:
        checkSize(type, start, end, 1);
        icmp = { type: view.getUint8(start), code: icmp?.code ?? 0, id: icmp?.id ?? 0 };
        break;
      case c.CTA_PROTO_ICMP_CODE:
      case c.CTA_PROTO_ICMPV6_CODE:
        checkSize(type, start, end, 1);
        icmp = { type: icmp?.type ?? 0, code: view.getUint8(start), id: icmp?.id ?? 0 };
        break;
    }
  };
  walkAttributes(view, from, to, (type, start, end) => {
    if (type === c.CTA_TUPLE_IP) walkAttributes(view, start, end, visitIp);
    else if (type === c.CTA_TUPLE_PROTO) walkAttributes(view, start, end, visitProtocol);
  });
  if (src === undefined || dst === undefined || src.family !== dst.family) throw missing('pair of addresses');
  if (protocol === undefined) throw missing('protocol');
  return { src, dst, protocol, srcPort, dstPort, icmp };
}

function decodeCounters(view: DataView, from: number, to: number): Counters {
  let packets = 0n;
  let bytes = 0n;
  walkAttributes(view, from, to, (type, start, end) => {
    if (type !== c.CTA_COUNTERS_PACKETS && type !== c.CTA_COUNTERS_BYTES) return;
    checkSize(type, start, end, 8);
    const value = view.getBigUint64(start);
    if (type === c.CTA_COUNTERS_PACKETS) packets = value;
    else bytes = value;
  });
  return { packets, bytes };
}

function decodeTcpState(view: DataView, from: number, to: number): number | undefined {
  let state: number | undefined;
  walkAttributes(view, from, to, (type, start, end) => {
    if (type !== c.CTA_PROTOINFO_TCP) return;
    walkAttributes(view, start, end, (type, start, end) => {
      if (type !== c.CTA_PROTOINFO_TCP_STATE) return;
      checkSize(type, start, end, 1);
      state = view.getUint8(start);
    });
  });
  return state;
}

/** A connection under construction: what attributes have said so far. */
class Fields {
  id: number | undefined;
  status = 0;
  mark = 0;
  zone = 0;
  original: Tuple | undefined;
  reply: Tuple | undefined;
  countersOriginal: Counters | undefined;
  countersReply: Counters | undefined;
  startNs: bigint | undefined;
  stopNs: bigint | undefined;
  eventNs: bigint | undefined;
  timeoutSeconds: number | undefined;
  tcpState: number | undefined;
}

/** `__be32` of exactly four bytes. */
function readU32(view: DataView, type: number, start: number, end: number): number {
  checkSize(type, start, end, 4);
  return view.getUint32(start);
}

function visitConnection(fields: Fields, view: DataView, type: number, start: number, end: number): void {
  switch (type) {
    case c.CTA_TUPLE_ORIG:
      fields.original = decodeTuple(view, start, end);
      break;
    case c.CTA_TUPLE_REPLY:
      fields.reply = decodeTuple(view, start, end);
      break;
    case c.CTA_STATUS:
      fields.status = readU32(view, type, start, end);
      break;
    case c.CTA_PROTOINFO:
      fields.tcpState = decodeTcpState(view, start, end);
      break;
    case c.CTA_TIMEOUT:
      fields.timeoutSeconds = readU32(view, type, start, end);
      break;
    case c.CTA_MARK:
      fields.mark = readU32(view, type, start, end);
      break;
    case c.CTA_COUNTERS_ORIG:
      fields.countersOriginal = decodeCounters(view, start, end);
      break;
    case c.CTA_COUNTERS_REPLY:
      fields.countersReply = decodeCounters(view, start, end);
      break;
    case c.CTA_ID:
      fields.id = readU32(view, type, start, end);
      break;
    case c.CTA_ZONE:
      checkSize(type, start, end, 2);
      fields.zone = view.getUint16(start);
      break;
    case c.CTA_TIMESTAMP_EVENT:
      checkSize(type, start, end, 8);
      fields.eventNs = view.getBigUint64(start);
      break;
    case c.CTA_TIMESTAMP:
      walkAttributes(view, start, end, (type, start, end) => {
        if (type !== c.CTA_TIMESTAMP_START && type !== c.CTA_TIMESTAMP_STOP) return;
        checkSize(type, start, end, 8);
        fields[type === c.CTA_TIMESTAMP_START ? 'startNs' : 'stopNs'] = view.getBigUint64(start);
      });
      break;
  }
}

/**
 * The attributes of a connection, as ctnetlink sends them and as nfnetlink_log nests them in NFULA_CT.
 * Nothing in the result points into `view`. Throws RangeError for malformed bytes, or without tuples or id;
 * what this does not know it skips.
 */
export function decodeConnection(view: DataView, from: number, to: number): Connection {
  const fields = new Fields();
  walkAttributes(view, from, to, (type, start, end) => visitConnection(fields, view, type, start, end));
  const { id, original, reply } = fields;
  if (id === undefined) throw missing('id');
  if (original === undefined || reply === undefined) throw missing('tuple');
  const { countersOriginal, countersReply } = fields;
  return {
    id,
    status: fields.status,
    mark: fields.mark,
    zone: fields.zone,
    family: original.src.family,
    protocol: original.protocol,
    original,
    reply,
    counters:
      countersOriginal === undefined || countersReply === undefined
        ? undefined
        : { original: countersOriginal, reply: countersReply },
    startNs: fields.startNs,
    stopNs: fields.stopNs,
    eventNs: fields.eventNs,
    timeoutSeconds: fields.timeoutSeconds,
    tcpState: fields.tcpState,
  };
}

/** An entry of a dump or a get; undefined for another message. Throws RangeError for malformed bytes. */
export function decodeEntry(message: Message): Connection | undefined {
  if (message.type !== c.IPCTNL_MSG_CT_NEW) return undefined;
  const { payload } = message;
  const view = new DataView(payload.buffer, payload.byteOffset, payload.length);
  return decodeConnection(view, NFGENMSG_BYTES, payload.length);
}

function kindOf(message: Message): ConntrackEvent['kind'] | undefined {
  switch (message.type) {
    case c.IPCTNL_MSG_CT_NEW:
      return (message.flags & c.NLM_F_CREATE) !== 0 ? 'new' : 'update';
    case c.IPCTNL_MSG_CT_DELETE:
      return 'destroy';
    default:
      return undefined;
  }
}

/**
 * An event of the groups; undefined for another message. Throws RangeError for malformed bytes. About 1 µs.
 */
export function decodeEvent(message: Message): ConntrackEvent | undefined {
  const kind = kindOf(message);
  if (kind === undefined) return undefined;
  const { payload } = message;
  const view = new DataView(payload.buffer, payload.byteOffset, payload.length);
  // Added and not spread: a copy of an event costs a tenth of decoding it.
  return Object.assign(decodeConnection(view, NFGENMSG_BYTES, payload.length), { kind });
}
