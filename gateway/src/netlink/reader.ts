import { align, NLA_HDRLEN, NLA_TYPE_MASK, NLMSG_HDRLEN } from './writer.js';

/** One netlink message. `payload` points into the receive buffer: decode before it is used again. */
export interface Message {
  readonly type: number;
  readonly flags: number;
  readonly sequence: number;
  readonly portId: number;
  readonly payload: Uint8Array;
}

/**
 * Walks the messages of a buffer of datagrams. The last message of a datagram may lack its padding: the receiver
 * starts every datagram at a multiple of four, so it is found all the same.
 *
 * Throws RangeError for a message that is shorter than its header or longer than the buffer.
 */
export function* readMessages(bytes: Uint8Array): Generator<Message> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let offset = 0;
  while (offset + NLMSG_HDRLEN <= bytes.length) {
    const length = view.getUint32(offset, true);
    if (length < NLMSG_HDRLEN || offset + length > bytes.length) {
      throw new RangeError(
        `Cannot decode message: it says ${length} bytes, the buffer has ${bytes.length - offset} left`,
      );
    }
    yield {
      type: view.getUint16(offset + 4, true),
      flags: view.getUint16(offset + 6, true),
      sequence: view.getUint32(offset + 8, true),
      portId: view.getUint32(offset + 12, true),
      payload: bytes.subarray(offset + NLMSG_HDRLEN, offset + length),
    };
    offset += align(length);
  }
}

/** Walks the attributes of one level, views into the message. Throws RangeError for one that says more than there is. */
export function* readAttributes(
  bytes: Uint8Array,
  offset = 0,
): Generator<{ readonly type: number; readonly value: Uint8Array }> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = offset;
  while (at + NLA_HDRLEN <= bytes.length) {
    const length = view.getUint16(at, true);
    if (length < NLA_HDRLEN || at + length > bytes.length) {
      throw new RangeError(`Cannot decode attribute: it says ${length} bytes, ${bytes.length - at} are left`);
    }
    yield {
      type: view.getUint16(at + 2, true) & NLA_TYPE_MASK,
      value: bytes.subarray(at + NLA_HDRLEN, at + length),
    };
    at += align(length);
  }
}

const decoder = new TextDecoder();

/**
 * The attributes of one level, by type; unknown ones are kept and never an error. Values are views into the
 * message: the getters that return bytes copy. Numeric getters return undefined for an absent attribute and throw
 * RangeError for one of the wrong size.
 */
export class Attributes {
  readonly #values = new Map<number, Uint8Array>();

  constructor(bytes: Uint8Array, offset = 0) {
    for (const { type, value } of readAttributes(bytes, offset)) this.#values.set(type, value);
  }

  has(type: number): boolean {
    return this.#values.has(type);
  }

  types(): number[] {
    return [...this.#values.keys()];
  }

  #view(type: number, size: number): DataView | undefined {
    const value = this.#values.get(type);
    if (value === undefined) return undefined;
    if (value.length !== size) {
      throw new RangeError(`Cannot decode attribute ${type}: it has ${value.length} bytes, not ${size}`);
    }
    return new DataView(value.buffer, value.byteOffset, size);
  }

  u8(type: number): number | undefined {
    return this.#view(type, 1)?.getUint8(0);
  }

  u16be(type: number): number | undefined {
    return this.#view(type, 2)?.getUint16(0, false);
  }

  u32(type: number): number | undefined {
    return this.#view(type, 4)?.getUint32(0, true);
  }

  u32be(type: number): number | undefined {
    return this.#view(type, 4)?.getUint32(0, false);
  }

  u64be(type: number): bigint | undefined {
    return this.#view(type, 8)?.getBigUint64(0, false);
  }

  /** A copy, safe to keep. */
  bytes(type: number): Uint8Array | undefined {
    return this.#values.get(type)?.slice();
  }

  /** Text up to the first zero byte. */
  string(type: number): string | undefined {
    const value = this.#values.get(type);
    if (value === undefined) return undefined;
    const end = value.indexOf(0);
    return decoder.decode(end < 0 ? value : value.subarray(0, end));
  }

  /** The attributes of a list, in which many have the same type. */
  list(type: number): Attributes[] {
    const value = this.#values.get(type);
    return value === undefined ? [] : [...readAttributes(value)].map(({ value }) => new Attributes(value));
  }

  nested(type: number): Attributes | undefined {
    const value = this.#values.get(type);
    return value === undefined ? undefined : new Attributes(value);
  }
}
