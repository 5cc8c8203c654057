import { addressToBytes } from '../net/address.js';
import type { Family } from '../net/family.js';
import type { MessageWriter } from '../netlink/writer.js';
import * as c from './constants.js';
import type { Tuple } from './tuple.js';

/** The sequence number comes back in the answers. */
interface Request {
  readonly sequence: number;
}

/** Which entries a dump lists. */
export interface DumpRequest extends Request {
  /** Both families where undefined. */
  readonly family?: Family;
  /** Only entries whose mark, under the mask, is the value. Cost is still linear in the whole table. */
  readonly mark?: { readonly value: number; readonly mask: number };
}

/** Names an entry by the tuple of its original direction. */
export interface EntryRequest extends Request {
  readonly original: Tuple;
  readonly zone?: number;
}

/** Names an entry beyond doubt: a new connection with the same tuple has another id. */
export interface DeleteRequest extends EntryRequest {
  readonly id: number;
}

const AF: Readonly<Record<Family, number>> = { 4: c.AF_INET, 6: c.AF_INET6 };

function encodeTuple(writer: MessageWriter, type: number, tuple: Tuple): void {
  const is4 = tuple.src.family === 4;
  const { protocol, srcPort, dstPort, icmp } = tuple;
  writer.nest(type, () => {
    writer.nest(c.CTA_TUPLE_IP, () => {
      writer.attributeBytes(is4 ? c.CTA_IP_V4_SRC : c.CTA_IP_V6_SRC, addressToBytes(tuple.src));
      writer.attributeBytes(is4 ? c.CTA_IP_V4_DST : c.CTA_IP_V6_DST, addressToBytes(tuple.dst));
    });
    writer.nest(c.CTA_TUPLE_PROTO, () => {
      writer.attributeU8(c.CTA_PROTO_NUM, protocol);
      if (srcPort !== undefined) writer.attributeU16be(c.CTA_PROTO_SRC_PORT, srcPort);
      if (dstPort !== undefined) writer.attributeU16be(c.CTA_PROTO_DST_PORT, dstPort);
      if (icmp === undefined) return;
      writer.attributeU8(is4 ? c.CTA_PROTO_ICMP_CODE : c.CTA_PROTO_ICMPV6_CODE, icmp.code);
      writer.attributeU8(is4 ? c.CTA_PROTO_ICMP_TYPE : c.CTA_PROTO_ICMPV6_TYPE, icmp.type);
      writer.attributeU16be(is4 ? c.CTA_PROTO_ICMP_ID : c.CTA_PROTO_ICMPV6_ID, icmp.id);
    });
  });
}

function encodeEntry(writer: MessageWriter, request: EntryRequest): void {
  writer.netfilterHeader(AF[request.original.src.family]);
  encodeTuple(writer, c.CTA_TUPLE_ORIG, request.original);
  if (request.zone !== undefined && request.zone !== 0) writer.attributeU16be(c.CTA_ZONE, request.zone);
}

/** Appends a request for all entries, or those of a mark. Answered by entries, then NLMSG_DONE. */
export function encodeDump(writer: MessageWriter, request: DumpRequest): void {
  const flags = c.NLM_F_REQUEST | c.NLM_F_DUMP;
  writer.beginMessage({ type: c.IPCTNL_MSG_CT_GET, flags, sequence: request.sequence });
  writer.netfilterHeader(request.family === undefined ? c.AF_UNSPEC : AF[request.family]);
  if (request.mark !== undefined) {
    writer.attributeU32be(c.CTA_MARK, request.mark.value);
    writer.attributeU32be(c.CTA_MARK_MASK, request.mark.mask);
  }
  writer.endMessage();
}

/** Appends a request for one entry. Answered by it and an acknowledgement, or by the error ENOENT. */
export function encodeGet(writer: MessageWriter, request: EntryRequest): void {
  const flags = c.NLM_F_REQUEST | c.NLM_F_ACK;
  writer.beginMessage({ type: c.IPCTNL_MSG_CT_GET, flags, sequence: request.sequence });
  encodeEntry(writer, request);
  writer.endMessage();
}

/**
 * Appends the deletion of one entry, acknowledged; ENOENT if it is gone or has another id. There is always a
 * tuple: without one the kernel would flush the whole table, which this module does not offer.
 */
export function encodeDelete(writer: MessageWriter, request: DeleteRequest): void {
  const flags = c.NLM_F_REQUEST | c.NLM_F_ACK;
  writer.beginMessage({ type: c.IPCTNL_MSG_CT_DELETE, flags, sequence: request.sequence });
  encodeEntry(writer, request);
  writer.attributeU32be(c.CTA_ID, request.id);
  writer.endMessage();
}
