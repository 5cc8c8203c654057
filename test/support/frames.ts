import { type Address, addressFromBytes, addressToBytes } from 'sluice-gateway/net/address.js';

/** What a test packet is made of. `tag` goes into the payload and tells the packet at the far end. */
export interface TestPacket {
  readonly src: Address;
  readonly dst: Address;
  readonly protocol: number;
  readonly srcPort: number;
  readonly dstPort: number;
  readonly tag: number;
  /** TCP flags; SYN alone by default. */
  readonly tcpFlags?: number;
  /** Sequence number, the tag by default, and acknowledgement, 0 by default. */
  readonly tcpSequence?: number;
  readonly tcpAcknowledgement?: number;
  /** Makes an ICMP packet the error "too big" about this one, whose tag is then the one found in the frame. */
  readonly quoted?: TestPacket;
}

export const TCP = { fin: 0x01, syn: 0x02, rst: 0x04, ack: 0x10 } as const;

const ETHERTYPE = { 4: 0x0800, 6: 0x86dd } as const;
const ICMP = 1;
const ICMPV6 = 58;

function checksum(...parts: readonly Uint8Array[]): number {
  const bytes = Buffer.concat(
    parts.map((part) => (part.length % 2 === 0 ? part : Buffer.concat([part, Buffer.alloc(1)]))),
  );
  let sum = 0;
  for (let offset = 0; offset < bytes.length; offset += 2) sum += bytes.readUInt16BE(offset);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

/** What a packet carries: its tag. */
export function taggedPayload(tag: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.write('SLCE');
  bytes.writeUInt32BE(tag, 4);
  return bytes;
}

function segment(packet: TestPacket): { bytes: Buffer; checksumAt: number | undefined } {
  const { protocol, srcPort, dstPort, tag, tcpFlags = TCP.syn, quoted } = packet;
  const payload = taggedPayload(tag);
  switch (protocol) {
    case 6: {
      const header = Buffer.alloc(20);
      header.writeUInt16BE(srcPort, 0);
      header.writeUInt16BE(dstPort, 2);
      header.writeUInt32BE(packet.tcpSequence ?? tag, 4);
      header.writeUInt32BE(packet.tcpAcknowledgement ?? 0, 8);
      header.writeUInt8(5 << 4, 12);
      header.writeUInt8(tcpFlags, 13);
      header.writeUInt16BE(65_535, 14);
      return { bytes: Buffer.concat([header, payload]), checksumAt: 16 };
    }
    case 17: {
      const header = Buffer.alloc(8);
      header.writeUInt16BE(srcPort, 0);
      header.writeUInt16BE(dstPort, 2);
      header.writeUInt16BE(8 + payload.length, 4);
      return { bytes: Buffer.concat([header, payload]), checksumAt: 6 };
    }
    case ICMP:
    case ICMPV6: {
      const header = Buffer.alloc(8);
      if (quoted !== undefined) return { bytes: tooBig(protocol, quoted), checksumAt: 2 };
      header.writeUInt8(protocol === ICMP ? 8 : 128, 0);
      header.writeUInt16BE(srcPort, 4);
      return { bytes: Buffer.concat([header, payload]), checksumAt: 2 };
    }
    default:
      return { bytes: payload, checksumAt: undefined };
  }
}

/** "Fragmentation needed" (RFC 1191), "packet too big" (RFC 4443), with the packet it is about. */
function tooBig(protocol: number, quoted: TestPacket): Buffer {
  const header = Buffer.alloc(8);
  header.writeUInt16BE(protocol === ICMP ? 0x0304 : 0x0200, 0);
  header.writeUInt16BE(1400, 6);
  return Buffer.concat([header, ipPacket(quoted)]);
}

function pseudoHeader({ src, dst, protocol }: TestPacket, length: number): Buffer {
  const tail = Buffer.alloc(src.family === 4 ? 4 : 8);
  tail.writeUInt16BE(length, 2);
  tail.writeUInt8(protocol, src.family === 4 ? 1 : 7);
  return Buffer.concat([addressToBytes(src), addressToBytes(dst), tail]);
}

function ipHeader({ src, dst, protocol }: TestPacket, length: number): Buffer {
  if (src.family === 6) {
    const header = Buffer.alloc(8);
    header.writeUInt8(0x60, 0);
    header.writeUInt16BE(length, 4);
    header.writeUInt8(protocol, 6);
    header.writeUInt8(64, 7);
    return Buffer.concat([header, addressToBytes(src), addressToBytes(dst)]);
  }
  const header = Buffer.alloc(12);
  header.writeUInt8(0x45, 0);
  header.writeUInt16BE(20 + length, 2);
  header.writeUInt8(64, 8);
  header.writeUInt8(protocol, 9);
  const whole = Buffer.concat([header, addressToBytes(src), addressToBytes(dst)]);
  whole.writeUInt16BE(checksum(whole), 10);
  return whole;
}

const mac = (text: string) => Buffer.from(text.replaceAll(':', ''), 'hex');

/** The packet from its IP header on, all checksums right. */
function ipPacket(packet: TestPacket): Buffer {
  const { bytes, checksumAt } = segment(packet);
  if (checksumAt !== undefined) {
    const isIcmp4 = packet.protocol === ICMP;
    const sum = isIcmp4 ? checksum(bytes) : checksum(pseudoHeader(packet, bytes.length), bytes);
    bytes.writeUInt16BE(packet.protocol === 17 && sum === 0 ? 0xffff : sum, checksumAt);
  }
  return Buffer.concat([ipHeader(packet, bytes.length), bytes]);
}

/** An Ethernet frame with the packet in it. */
export function frame(packet: TestPacket, macs: { readonly src: string; readonly dst: string }): Buffer {
  const type = Buffer.alloc(2);
  type.writeUInt16BE(ETHERTYPE[packet.src.family]);
  return Buffer.concat([mac(macs.dst), mac(macs.src), type, ipPacket(packet)]);
}

/** A frame as far as tests look at it. */
export interface SeenPacket {
  readonly src: Address;
  readonly dst: Address;
  readonly protocol: number;
  /** Tag of a test packet, anywhere in the frame: an ICMP error quotes the packet it is about. */
  readonly tag: number | undefined;
  /** Everything behind the IP header. */
  readonly segment: Buffer;
}

/** Reads a captured frame; undefined for what is neither IPv4 nor IPv6. */
export function readFrame(bytes: Buffer): SeenPacket | undefined {
  const type = bytes.readUInt16BE(12);
  const at = bytes.indexOf('SLCE');
  const tag = at >= 0 && at + 8 <= bytes.length ? bytes.readUInt32BE(at + 4) : undefined;
  if (type === ETHERTYPE[4]) {
    return {
      src: addressFromBytes(bytes.subarray(26, 30)),
      dst: addressFromBytes(bytes.subarray(30, 34)),
      protocol: bytes.readUInt8(23),
      tag,
      segment: bytes.subarray(34),
    };
  }
  if (type !== ETHERTYPE[6]) return undefined;
  return {
    src: addressFromBytes(bytes.subarray(22, 38)),
    dst: addressFromBytes(bytes.subarray(38, 54)),
    protocol: bytes.readUInt8(20),
    tag,
    segment: bytes.subarray(54),
  };
}
