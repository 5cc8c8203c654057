/** Size of `struct nlmsghdr`, in bytes. */
export const NLMSG_HDRLEN = 16;
/** Size of `struct nlattr`, in bytes. */
export const NLA_HDRLEN = 4;
/** An attribute's own length field has 16 bits, its header included. */
export const ATTRIBUTE_BYTES_MAX = 0xffff;
/** `NLA_F_NESTED` of linux/netlink.h: the payload is attributes. */
export const NLA_F_NESTED = 0x8000;
/** `NLA_TYPE_MASK`: what remains of a type without the nested and byte-order flags. */
export const NLA_TYPE_MASK = 0x3fff;

/** `NLMSG_ALIGN(len)` and `NLA_ALIGN(len)`: `(len + 3) & ~3`. */
export function align(length: number): number {
  return (length + 3) & ~3;
}

const encoder = new TextEncoder();

/** Header fields of one netlink message; `sequence` lets an error name the message that caused it. */
export interface MessageHeader {
  readonly type: number;
  readonly flags: number;
  readonly sequence: number;
}

/**
 * Appends netlink messages and their attributes to one growing buffer. Attribute numbers are written in network
 * byte order where the method says `be`, in the machine's (little-endian on x64 and arm64) otherwise.
 *
 * Throws RangeError where an attribute outgrows its 16-bit length: the caller splits what it writes.
 */
export class MessageWriter {
  #bytes: Uint8Array;
  #view: DataView;
  #length = 0;
  #message = -1;

  constructor(capacityBytes = 4096) {
    this.#bytes = new Uint8Array(capacityBytes);
    this.#view = new DataView(this.#bytes.buffer);
  }

  /** Bytes written so far. */
  get length(): number {
    return this.#length;
  }

  /** What was written, as a view that the next write may move away from. */
  bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }

  #reserve(count: number): number {
    const offset = this.#length;
    const needed = offset + count;
    if (needed > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(needed, this.#bytes.length * 2));
      grown.set(this.#bytes.subarray(0, offset));
      this.#bytes = grown;
      this.#view = new DataView(grown.buffer);
    }
    this.#length = needed;
    return offset;
  }

  beginMessage(header: MessageHeader): this {
    this.#message = this.#reserve(NLMSG_HDRLEN);
    this.#view.setUint16(this.#message + 4, header.type, true);
    this.#view.setUint16(this.#message + 6, header.flags, true);
    this.#view.setUint32(this.#message + 8, header.sequence, true);
    return this;
  }

  endMessage(): this {
    this.#view.setUint32(this.#message, this.#length - this.#message, true);
    return this;
  }

  /** Raw bytes, padded to four: a family header, for example. */
  raw(bytes: Uint8Array): this {
    const offset = this.#reserve(align(bytes.length));
    this.#bytes.set(bytes, offset);
    return this;
  }

  /** Appends bytes made before, and gives where they stand, to be filled in. Valid until the next write. */
  template(bytes: Uint8Array): { readonly view: DataView; readonly offset: number } {
    const offset = this.#reserve(bytes.length);
    this.#bytes.set(bytes, offset);
    return { view: this.#view, offset };
  }

  /** `struct nfgenmsg`: family, version 0, resource id in network byte order. */
  netfilterHeader(family: number, resourceId = 0): this {
    const offset = this.#reserve(4);
    this.#bytes[offset] = family;
    this.#view.setUint16(offset + 2, resourceId, false);
    return this;
  }

  #attribute(type: number, payloadBytes: number): number {
    if (NLA_HDRLEN + payloadBytes > ATTRIBUTE_BYTES_MAX) {
      throw new RangeError(
        `Cannot encode attribute ${type}: it has ${payloadBytes} bytes, the limit is ${ATTRIBUTE_BYTES_MAX - NLA_HDRLEN}`,
      );
    }
    const offset = this.#reserve(align(NLA_HDRLEN + payloadBytes));
    this.#view.setUint16(offset, NLA_HDRLEN + payloadBytes, true);
    this.#view.setUint16(offset + 2, type, true);
    return offset + NLA_HDRLEN;
  }

  attributeBytes(type: number, payload: Uint8Array): this {
    const offset = this.#attribute(type, payload.length);
    this.#bytes.set(payload, offset);
    return this;
  }

  /** A zero-terminated string, as the kernel's NLA_NUL_STRING and NLA_STRING both take it. */
  attributeString(type: number, text: string): this {
    return this.attributeBytes(type, encoder.encode(`${text}\0`));
  }

  attributeU8(type: number, value: number): this {
    const offset = this.#attribute(type, 1);
    this.#bytes[offset] = value;
    return this;
  }

  attributeU16be(type: number, value: number): this {
    const offset = this.#attribute(type, 2);
    this.#view.setUint16(offset, value, false);
    return this;
  }

  attributeU32(type: number, value: number): this {
    const offset = this.#attribute(type, 4);
    this.#view.setUint32(offset, value, true);
    return this;
  }

  attributeU32be(type: number, value: number): this {
    const offset = this.#attribute(type, 4);
    this.#view.setUint32(offset, value, false);
    return this;
  }

  attributeU64be(type: number, value: bigint): this {
    const offset = this.#attribute(type, 8);
    this.#view.setBigUint64(offset, value, false);
    return this;
  }

  /** Writes a nested attribute around what `body` writes. */
  nest(type: number, body: () => void): this {
    const offset = this.#attribute(type | NLA_F_NESTED, 0) - NLA_HDRLEN;
    body();
    const length = this.#length - offset;
    if (length > ATTRIBUTE_BYTES_MAX) {
      throw new RangeError(
        `Cannot encode nested attribute ${type}: it has ${length} bytes, the limit is ${ATTRIBUTE_BYTES_MAX}`,
      );
    }
    this.#view.setUint16(offset, length, true);
    return this;
  }
}
