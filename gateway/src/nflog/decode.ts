import { type Connection, decodeConnection } from '../conntrack/decode.js';
import type { Tuple } from '../conntrack/tuple.js';
import {
  attributeEnd,
  attributeStart,
  attributeType,
  hasAttribute,
  nextAttribute,
  payloadOf,
} from '../conntrack/walk.js';
import type { Message } from '../netlink/reader.js';
import * as c from './constants.js';
import { readPacket, type TcpHeader } from './packet.js';

/** `enum nf_inet_hooks` of linux/netfilter.h, in its order. */
export const HOOKS = ['prerouting', 'input', 'forward', 'output', 'postrouting'] as const;

/**
 * One packet that a `log group` rule saw. What is optional in the message is undefined where it is absent.
 */
export interface NflogPacket {
  readonly prefix: string;
  /** Counts the packets that the group logged since the socket was bound to it, modulo 2^32. */
  readonly sequence: number | undefined;
  /** The packet's mark; 0 where the message has none: the kernel leaves out a mark of 0. */
  readonly mark: number;
  /** Indexes of interfaces. */
  readonly indev: number | undefined;
  readonly outdev: number | undefined;
  /** Milliseconds since 1970; absent for packets that were never stamped. */
  readonly timestampMs: number | undefined;
  /** Index into `HOOKS`. */
  readonly hook: number;
  /** EtherType: 0x0800 or 0x86dd. */
  readonly protocol: number;
  /** Undefined where the payload is no IPv4 or IPv6 packet, or too short a start of one. */
  readonly tuple: Tuple | undefined;
  readonly tcp: TcpHeader | undefined;
  /** With `conntrack` asked for at binding, for packets that are tracked. */
  readonly conntrack: Connection | undefined;
  /** `enum ip_conntrack_info` of linux/netfilter/nf_conntrack_common.h; from 3 on in the direction of the reply. */
  readonly conntrackInfo: number | undefined;
}

/** Size of `struct nfgenmsg`, in bytes. */
const NFGENMSG_BYTES = 4;

const decoder = new TextDecoder();

/** A packet under construction: what attributes have said so far. */
class Fields {
  prefix = '';
  sequence: number | undefined;
  mark = 0;
  indev: number | undefined;
  outdev: number | undefined;
  timestampMs: number | undefined;
  hook: number | undefined;
  protocol = 0;
  tuple: Tuple | undefined;
  tcp: TcpHeader | undefined;
  conntrack: Connection | undefined;
  conntrackInfo: number | undefined;
}

const readU32 = (view: DataView, at: number) => view.getUint32(payloadOf(view, at, 4));

/** `struct nfulnl_msg_packet_timestamp`: `__be64` seconds and microseconds. */
function readTimestamp(view: DataView, at: number): number {
  const start = payloadOf(view, at, 16);
  return Number(view.getBigUint64(start)) * 1_000 + Math.floor(Number(view.getBigUint64(start + 8)) / 1_000);
}

/** Text up to the first zero byte. */
function readString(view: DataView, start: number, end: number): string {
  const bytes = new Uint8Array(view.buffer, view.byteOffset + start, end - start);
  const zero = bytes.indexOf(0);
  return decoder.decode(zero < 0 ? bytes : bytes.subarray(0, zero));
}

function decodeAttribute(fields: Fields, view: DataView, at: number): void {
  const [start, end] = [attributeStart(at), attributeEnd(view, at)];
  switch (attributeType(view, at)) {
    case c.NFULA_PACKET_HDR: {
      const header = payloadOf(view, at, 4);
      fields.protocol = view.getUint16(header);
      fields.hook = view.getUint8(header + 2);
      break;
    }
    case c.NFULA_SEQ:
      fields.sequence = readU32(view, at);
      break;
    case c.NFULA_MARK:
      fields.mark = readU32(view, at);
      break;
    case c.NFULA_TIMESTAMP:
      fields.timestampMs = readTimestamp(view, at);
      break;
    case c.NFULA_IFINDEX_INDEV:
      fields.indev = readU32(view, at);
      break;
    case c.NFULA_IFINDEX_OUTDEV:
      fields.outdev = readU32(view, at);
      break;
    case c.NFULA_PAYLOAD: {
      const packet = readPacket(new DataView(view.buffer, view.byteOffset + start, end - start));
      fields.tuple = packet?.tuple;
      fields.tcp = packet?.tcp;
      break;
    }
    case c.NFULA_PREFIX:
      fields.prefix = readString(view, start, end);
      break;
    case c.NFULA_CT:
      fields.conntrack = decodeConnection(view, start, end);
      break;
    case c.NFULA_CT_INFO:
      fields.conntrackInfo = readU32(view, at);
      break;
  }
}

/**
 * A logged packet; undefined for another message. Throws RangeError for a malformed message, which the kernel
 * does not send; a malformed packet, which anyone may send, only has no `tuple`. Nothing in the result points
 * into the message.
 */
export function decodePacket(message: Message): NflogPacket | undefined {
  if (message.type !== c.NFULNL_MSG_PACKET) return undefined;
  const { payload } = message;
  const view = new DataView(payload.buffer, payload.byteOffset, payload.length);
  const fields = new Fields();
  for (let at = NFGENMSG_BYTES; hasAttribute(view, at, payload.length); at = nextAttribute(view, at))
    decodeAttribute(fields, view, at);
  const { hook } = fields;
  if (hook === undefined) throw new RangeError('Cannot decode logged packet: it has no header');
  return { ...fields, hook };
}
