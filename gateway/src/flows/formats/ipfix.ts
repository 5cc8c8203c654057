import { isIPv4 } from 'node:net';
import { addressToBytes, parseAddress } from '../../net/address.js';
import type { Format } from '../format.js';
import type { FlowRecord } from '../record.js';
import { type EndsRecord, hasEnds, isIpv6, protocolNumber, refusedPackets, startOf } from './numbers.js';

/** RFC 5103: a counter of the other direction. */
const REVERSE_PEN = 29_305;
const VARIABLE = 0xffff;
/** firewallEvent. */
const FIREWALL_EVENTS = { open: 1, close: 2, deny: 3, revoke: 3, update: 5, loss: 0 } as const;
/** flowEndReason: idle timeout, end of flow detected, forced end. */
const END_REASONS = { timeout: 1, closed: 3, revoked: 4, deleted: 4 } as const;
const NAME_BYTES_MAX = 254;

interface Field {
  /** IANA's number of the information element. */
  readonly id: number;
  readonly bytes: number;
  readonly isReverse?: true;
  readonly put: (bytes: Buffer, at: number, record: EndsRecord) => void;
}

const ip = (text: string) => addressToBytes(parseAddress(text));
const u16 = (id: number, of: (record: EndsRecord) => number): Field => ({
  id,
  bytes: 2,
  put: (bytes, at, record) => bytes.writeUInt16BE(of(record), at),
});
const u8 = (id: number, of: (record: EndsRecord) => number): Field => ({
  id,
  bytes: 1,
  put: (bytes, at, record) => bytes.writeUInt8(of(record), at),
});
const u64 = (id: number, of: (record: EndsRecord) => number): Field => ({
  id,
  bytes: 8,
  put: (bytes, at, record) => bytes.writeBigUInt64BE(BigInt(of(record)), at),
});
const reverse = (field: Field): Field => ({ ...field, isReverse: true });
const address = (id: number, bytes: number, of: (record: EndsRecord) => string): Field => ({
  id,
  bytes,
  put: (target, at, record) => target.set(ip(of(record)), at),
});

/** A close tells the totals of a connection: no earlier record told any. */
const total = (counts: 'packets' | 'bytes', way: 'out' | 'in') => (record: EndsRecord) =>
  record.event === 'close' ? (record[counts]?.[way] ?? 0) : 0;
const packetsOut = (record: EndsRecord) =>
  record.event === 'deny' || record.event === 'revoke'
    ? refusedPackets(record)
    : total('packets', 'out')(record);

function fields(family: 4 | 6): readonly Field[] {
  const is4 = family === 4;
  const addressBytes = is4 ? 4 : 16;
  return [
    u64(152, (record) => Date.parse(startOf(record))), // flowStartMilliseconds
    u64(153, (record) => Date.parse(record.time)), // flowEndMilliseconds
    address(is4 ? 8 : 27, addressBytes, ({ src }) => src.ip), // source address
    address(is4 ? 12 : 28, addressBytes, ({ dst }) => dst.ip), // destination address
    u16(7, ({ src }) => src.port ?? 0), // sourceTransportPort
    u16(11, ({ dst }) => dst.port ?? 0), // destinationTransportPort
    u16(is4 ? 32 : 139, ({ icmp }) => (icmp === undefined ? 0 : icmp.type * 256 + icmp.code)), // icmpTypeCode
    u8(4, protocolNumber), // protocolIdentifier
    u8(136, ({ endReason }) => (endReason === undefined ? 0 : END_REASONS[endReason])), // flowEndReason
    u8(233, ({ event }) => FIREWALL_EVENTS[event]), // firewallEvent
    u64(2, packetsOut), // packetDeltaCount
    u64(1, total('bytes', 'out')), // octetDeltaCount
    reverse(u64(2, total('packets', 'in'))),
    reverse(u64(1, total('bytes', 'in'))),
    address(is4 ? 225 : 281, addressBytes, ({ src, nat }) => nat?.ip ?? src.ip), // postNATSource address
    u16(227, ({ src, nat }) => nat?.port ?? src.port ?? 0), // postNAPTSourceTransportPort
  ];
}

/** Texts of variable length, at the end: the rule as selectorName, the first function as userName. */
const TEXTS: readonly { readonly id: number; readonly of: (record: EndsRecord) => string }[] = [
  { id: 335, of: ({ rule }) => rule?.name ?? '' },
  { id: 371, of: ({ src }) => src.functions[0] ?? '' },
];

/** A template set of one template each: number, and the fields of its records. */
const TEMPLATES = { 256: fields(4), 257: fields(6) } as const;
type TemplateId = keyof typeof TEMPLATES;
const sizeOf = (id: TemplateId) => TEMPLATES[id].reduce((sum, { bytes }) => sum + bytes, 0);
const SIZES: Readonly<Record<TemplateId, number>> = { 256: sizeOf(256), 257: sizeOf(257) };

function templateRecord(id: TemplateId): Buffer {
  const words: number[] = [id, TEMPLATES[id].length + TEXTS.length];
  for (const field of TEMPLATES[id]) {
    if (field.isReverse !== true) words.push(field.id, field.bytes);
    else words.push(field.id | 0x8000, field.bytes, 0, REVERSE_PEN);
  }
  for (const { id } of TEXTS) words.push(id, VARIABLE);
  const bytes = Buffer.alloc(words.length * 2);
  for (const [index, word] of words.entries()) bytes.writeUInt16BE(word, index * 2);
  return bytes;
}

/** The template set (RFC 7011, 3.4.1), which a collector needs before anything else. */
export function templateSet(): Buffer {
  return set(2, [templateRecord(256), templateRecord(257)]);
}

/** A set: `id (2) | length (2) | records`. */
export function set(id: number, records: readonly Uint8Array[]): Buffer {
  const body = Buffer.concat(records);
  const head = Buffer.alloc(4);
  head.writeUInt16BE(id, 0);
  head.writeUInt16BE(body.length + 4, 2);
  return Buffer.concat([head, body]);
}

/** A message: version 10, its length, when it was exported, how many records were before it, the domain. */
export function message(
  sets: readonly Uint8Array[],
  head: { readonly seconds: number; readonly sequence: number; readonly domain: number },
): Buffer {
  const body = Buffer.concat(sets);
  const bytes = Buffer.alloc(16);
  bytes.writeUInt16BE(10, 0);
  bytes.writeUInt16BE(body.length + 16, 2);
  bytes.writeUInt32BE(head.seconds >>> 0, 4);
  bytes.writeUInt32BE(head.sequence >>> 0, 8);
  bytes.writeUInt32BE(head.domain >>> 0, 12);
  return Buffer.concat([bytes, body]);
}

function dataRecord(id: TemplateId, record: EndsRecord): Buffer {
  const texts = TEXTS.map(({ of }) => Buffer.from(of(record)).subarray(0, NAME_BYTES_MAX));
  const bytes = Buffer.alloc(SIZES[id] + texts.reduce((sum, text) => sum + 1 + text.length, 0));
  let at = 0;
  for (const field of TEMPLATES[id]) {
    field.put(bytes, at, record);
    at += field.bytes;
  }
  for (const text of texts) {
    bytes[at] = text.length;
    bytes.set(text, at + 1);
    at += 1 + text.length;
  }
  return bytes;
}

const isWithNatOfFamily = ({ src, nat }: EndsRecord) =>
  nat === undefined || isIPv4(nat.ip) === isIPv4(src.ip);

/**
 * A data record before which stands its template's number, a character a byte (latin1). Updates and loss have no form:
 * counters in IPFIX are of one record, and a close tells them all.
 */
export const ipfixFormat: Format = (record: FlowRecord) => {
  if (!hasEnds(record) || record.event === 'update' || record.enforced !== true) return undefined;
  if (!isWithNatOfFamily(record)) return undefined;
  const id = isIpv6(record) ? 257 : 256;
  return String.fromCharCode(id >>> 8, id & 0xff) + dataRecord(id, record).toString('latin1');
};
