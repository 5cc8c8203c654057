import type { Address } from '../net/address.js';
import type { Family } from '../net/family.js';
import type { Message } from '../netlink/reader.js';
import * as c from './constants.js';
import { type Icmp, readAddressAt, type Tuple } from './tuple.js';
import {
  attributeEnd,
  attributeStart,
  attributeType,
  hasAttribute,
  nextAttribute,
  payloadOf,
} from './walk.js';

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

/** What passed in one direction; exact below 2^53. */
export interface Counters {
  readonly packets: number;
  readonly bytes: number;
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
   * Milliseconds since 1970, with `nf_conntrack_timestamp` on: in dumps the start, when it is destroyed both.
   */
  readonly startMs: number | undefined;
  readonly stopMs: number | undefined;
  /** When the event happened, likewise; from Linux 6.14. */
  readonly eventMs: number | undefined;
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

/** A tuple under construction. */
class TupleFields {
  src: Address | undefined;
  dst: Address | undefined;
  protocol: number | undefined;
  srcPort: number | undefined;
  dstPort: number | undefined;
  icmp: Icmp | undefined;
}

function decodeAddresses(fields: TupleFields, view: DataView, from: number, to: number): void {
  for (let at = from; hasAttribute(view, at, to); at = nextAttribute(view, at)) {
    const type = attributeType(view, at);
    if (type < c.CTA_IP_V4_SRC || type > c.CTA_IP_V6_DST) continue;
    const family = type <= c.CTA_IP_V4_DST ? 4 : 6;
    const address = readAddressAt(view, payloadOf(view, at, family === 4 ? 4 : 16), family);
    if (type === c.CTA_IP_V4_SRC || type === c.CTA_IP_V6_SRC) fields.src = address;
    else fields.dst = address;
  }
}

function decodeLayer4(fields: TupleFields, view: DataView, from: number, to: number): void {
  const icmp = () => fields.icmp ?? { type: 0, code: 0, id: 0 };
  for (let at = from; hasAttribute(view, at, to); at = nextAttribute(view, at)) {
    switch (attributeType(view, at)) {
      case c.CTA_PROTO_NUM:
        fields.protocol = view.getUint8(payloadOf(view, at, 1));
        break;
      case c.CTA_PROTO_SRC_PORT:
        fields.srcPort = view.getUint16(payloadOf(view, at, 2));
        break;
      case c.CTA_PROTO_DST_PORT:
        fields.dstPort = view.getUint16(payloadOf(view, at, 2));
        break;
      case c.CTA_PROTO_ICMP_ID:
      case c.CTA_PROTO_ICMPV6_ID:
        fields.icmp = { ...icmp(), id: view.getUint16(payloadOf(view, at, 2)) };
        break;
      case c.CTA_PROTO_ICMP_TYPE:
      case c.CTA_PROTO_ICMPV6_TYPE:
        fields.icmp = { ...icmp(), type: view.getUint8(payloadOf(view, at, 1)) };
        break;
      case c.CTA_PROTO_ICMP_CODE:
      case c.CTA_PROTO_ICMPV6_CODE:
        fields.icmp = { ...icmp(), code: view.getUint8(payloadOf(view, at, 1)) };
        break;
    }
  }
}

function decodeTuple(view: DataView, from: number, to: number): Tuple {
  const fields = new TupleFields();
  for (let at = from; hasAttribute(view, at, to); at = nextAttribute(view, at)) {
    const [start, end] = [attributeStart(at), attributeEnd(view, at)];
    const type = attributeType(view, at);
    if (type === c.CTA_TUPLE_IP) decodeAddresses(fields, view, start, end);
    else if (type === c.CTA_TUPLE_PROTO) decodeLayer4(fields, view, start, end);
  }
  const { src, dst, protocol, srcPort, dstPort, icmp } = fields;
  if (src === undefined || dst === undefined || src.family !== dst.family) throw missing('pair of addresses');
  if (protocol === undefined) throw missing('protocol');
  return { src, dst, protocol, srcPort, dstPort, icmp };
}

/** `__be64`, without a bigint; exact below 2^53. */
const readU64 = (view: DataView, at: number) => view.getUint32(at) * 2 ** 32 + view.getUint32(at + 4);

/** `__be64` of nanoseconds as whole milliseconds, exactly; undefined where the kernel has none: 0. */
function readMs(view: DataView, at: number): number | undefined {
  const [high, low] = [view.getUint32(at), view.getUint32(at + 4)];
  // 2^32 = 4,294 * 1,000,000 + 967,296: no step of this reaches 2^53.
  const ms = high * 4_294 + Math.floor((high * 967_296 + low) / 1_000_000);
  return ms === 0 ? undefined : ms;
}

function decodeCounters(view: DataView, from: number, to: number): Counters {
  let [packets, bytes] = [0, 0];
  for (let at = from; hasAttribute(view, at, to); at = nextAttribute(view, at)) {
    const type = attributeType(view, at);
    if (type === c.CTA_COUNTERS_PACKETS) packets = readU64(view, payloadOf(view, at, 8));
    else if (type === c.CTA_COUNTERS_BYTES) bytes = readU64(view, payloadOf(view, at, 8));
  }
  return { packets, bytes };
}

function decodeTcpState(view: DataView, from: number, to: number): number | undefined {
  let state: number | undefined;
  for (let at = from; hasAttribute(view, at, to); at = nextAttribute(view, at)) {
    if (attributeType(view, at) !== c.CTA_PROTOINFO_TCP) continue;
    const end = attributeEnd(view, at);
    for (let tcp = attributeStart(at); hasAttribute(view, tcp, end); tcp = nextAttribute(view, tcp))
      if (attributeType(view, tcp) === c.CTA_PROTOINFO_TCP_STATE)
        state = view.getUint8(payloadOf(view, tcp, 1));
  }
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
  startMs: number | undefined;
  stopMs: number | undefined;
  eventMs: number | undefined;
  timeoutSeconds: number | undefined;
  tcpState: number | undefined;
}

function decodeTimes(fields: Fields, view: DataView, from: number, to: number): void {
  for (let at = from; hasAttribute(view, at, to); at = nextAttribute(view, at)) {
    const type = attributeType(view, at);
    if (type === c.CTA_TIMESTAMP_START) fields.startMs = readMs(view, payloadOf(view, at, 8));
    else if (type === c.CTA_TIMESTAMP_STOP) fields.stopMs = readMs(view, payloadOf(view, at, 8));
  }
}

function decodeAttribute(fields: Fields, view: DataView, at: number): void {
  const [start, end] = [attributeStart(at), attributeEnd(view, at)];
  switch (attributeType(view, at)) {
    case c.CTA_TUPLE_ORIG:
      fields.original = decodeTuple(view, start, end);
      break;
    case c.CTA_TUPLE_REPLY:
      fields.reply = decodeTuple(view, start, end);
      break;
    case c.CTA_STATUS:
      fields.status = view.getUint32(payloadOf(view, at, 4));
      break;
    case c.CTA_PROTOINFO:
      fields.tcpState = decodeTcpState(view, start, end);
      break;
    case c.CTA_TIMEOUT:
      fields.timeoutSeconds = view.getUint32(payloadOf(view, at, 4));
      break;
    case c.CTA_MARK:
      fields.mark = view.getUint32(payloadOf(view, at, 4));
      break;
    case c.CTA_COUNTERS_ORIG:
      fields.countersOriginal = decodeCounters(view, start, end);
      break;
    case c.CTA_COUNTERS_REPLY:
      fields.countersReply = decodeCounters(view, start, end);
      break;
    case c.CTA_ID:
      fields.id = view.getUint32(payloadOf(view, at, 4));
      break;
    case c.CTA_ZONE:
      fields.zone = view.getUint16(payloadOf(view, at, 2));
      break;
    case c.CTA_TIMESTAMP_EVENT:
      fields.eventMs = readMs(view, payloadOf(view, at, 8));
      break;
    case c.CTA_TIMESTAMP:
      decodeTimes(fields, view, start, end);
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
  for (let at = from; hasAttribute(view, at, to); at = nextAttribute(view, at))
    decodeAttribute(fields, view, at);
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
    startMs: fields.startMs,
    stopMs: fields.stopMs,
    eventMs: fields.eventMs,
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
