import type { MessageWriter } from '../netlink/writer.js';
import type { Verdict } from './statement.js';

/** `enum nft_list_attributes`, `enum nft_expr_attributes` of linux/netfilter/nf_tables.h. */
const NFTA_LIST_ELEM = 1;
const NFTA_EXPR_NAME = 1;
const NFTA_EXPR_DATA = 2;
/** `enum nft_data_attributes`, `enum nft_verdict_attributes`. */
const NFTA_DATA_VALUE = 1;
const NFTA_DATA_VERDICT = 2;
const NFTA_VERDICT_CODE = 1;
const NFTA_VERDICT_CHAIN = 2;
/** `NF_DROP`, `NF_ACCEPT`, `NFT_JUMP`, `NFT_GOTO`. */
const VERDICT_CODE: Readonly<Record<Verdict['kind'], number>> = { drop: 0, accept: 1, jump: -3, goto: -4 };

/** `NFT_REG_VERDICT`, `NFT_REG_1`: one register is enough, no statement keeps a value for the next. */
export const REG_VERDICT = 0;
export const REG_1 = 1;
/** `NFT_REG32_01`, four bytes behind the start of `NFT_REG_1`: the two are read as one key. */
export const REG_BEHIND_MARK = 9;

/** `enum nft_cmp_ops`. */
export const CMP_EQ = 0;
export const CMP_NEQ = 1;
export const CMP_LTE = 3;
export const CMP_GTE = 5;

/** `NFT_PAYLOAD_TRANSPORT_HEADER`. */
export const PAYLOAD_TRANSPORT_HEADER = 2;
const IFNAMSIZ = 16;
export const NFPROTO_OF_FAMILY = { 4: 2, 6: 10 } as const;
export const IPPROTO_ICMP_OF_FAMILY = { 4: 1, 6: 58 } as const;

/** Offset of the flags byte in a TCP header, and the four flags that a bare SYN has but one of. */
export const TCP_FLAGS_OFFSET = 13;
export const TCP_FIN_SYN_RST_ACK = 0x17;
export const TCP_SYN = 0x02;

/** A number in the machine's byte order, as the kernel keeps marks and conntrack states in registers. */
export function hostU32(value: number): Uint8Array {
  return new Uint8Array(Uint32Array.of(value).buffer);
}

export const networkU16 = (value: number) => Uint8Array.of(value >>> 8, value & 0xff);

export function interfaceName(name: string): Uint8Array {
  const bytes = new Uint8Array(IFNAMSIZ);
  new TextEncoder().encodeInto(name, bytes.subarray(0, IFNAMSIZ - 1));
  return bytes;
}

/** Writes `NFTA_DATA_VERDICT` inside an attribute of the given type. */
export function encodeVerdictData(writer: MessageWriter, type: number, verdict: Verdict): void {
  writer.nest(type, () =>
    writer.nest(NFTA_DATA_VERDICT, () => {
      writer.attributeU32be(NFTA_VERDICT_CODE, VERDICT_CODE[verdict.kind] >>> 0);
      if ('chain' in verdict) writer.attributeString(NFTA_VERDICT_CHAIN, verdict.chain);
    }),
  );
}

/** Writes `NFTA_DATA_VALUE` inside an attribute of the given type. */
export function encodeValueData(writer: MessageWriter, type: number, value: Uint8Array): void {
  writer.nest(type, () => writer.attributeBytes(NFTA_DATA_VALUE, value));
}

/** `NFT_LIMIT_F_INV`: goes on where the limit is exceeded, not below it. */
const LIMIT_OVER = 1;

/** `NFTA_LIMIT_RATE` 1, `UNIT` 2 (seconds), `BURST` 3, `TYPE` 4 (packets), `FLAGS` 5. */
export function limitData(writer: MessageWriter, perSecond: number, burst: number, flags = 0): void {
  writer
    .attributeU64be(1, BigInt(perSecond))
    .attributeU64be(2, 1n)
    .attributeU32be(3, burst)
    .attributeU32be(4, 0)
    .attributeU32be(5, flags);
}

/** Writes kernel expressions, one method each, with the attribute numbers of nf_tables.h. */
export class Expressions {
  readonly #writer: MessageWriter;

  constructor(writer: MessageWriter) {
    this.#writer = writer;
  }

  #expression(name: string, data: (writer: MessageWriter) => void): void {
    const writer = this.#writer;
    writer.nest(NFTA_LIST_ELEM, () => {
      writer.attributeString(NFTA_EXPR_NAME, name);
      writer.nest(NFTA_EXPR_DATA, () => data(writer));
    });
  }

  /** `NFTA_META_DREG` 1, `NFTA_META_KEY` 2. */
  meta(key: number): void {
    this.#expression('meta', (writer) => writer.attributeU32be(2, key).attributeU32be(1, REG_1));
  }

  /** `NFTA_META_KEY` 2, `NFTA_META_SREG` 3. */
  setMeta(key: number): void {
    this.#expression('meta', (writer) => writer.attributeU32be(2, key).attributeU32be(3, REG_1));
  }

  /** `NFTA_CT_DREG` 1, `NFTA_CT_KEY` 2, `NFTA_CT_DIRECTION` 3. */
  ct(key: number, direction?: number, register = REG_1): void {
    this.#expression('ct', (writer) => {
      writer.attributeU32be(2, key).attributeU32be(1, register);
      if (direction !== undefined) writer.attributeU8(3, direction);
    });
  }

  /** `NFTA_CT_KEY` 2, `NFTA_CT_SREG` 4. */
  setCt(key: number): void {
    this.#expression('ct', (writer) => writer.attributeU32be(2, key).attributeU32be(4, REG_1));
  }

  /** `NFTA_PAYLOAD_DREG` 1, `BASE` 2, `OFFSET` 3, `LEN` 4. */
  transportByte(offset: number): void {
    this.#expression('payload', (writer) =>
      writer
        .attributeU32be(1, REG_1)
        .attributeU32be(2, PAYLOAD_TRANSPORT_HEADER)
        .attributeU32be(3, offset)
        .attributeU32be(4, 1),
    );
  }

  /** `NFTA_FIB_DREG` 1, `RESULT` 2, `FLAGS` 3. */
  fib(result: number, flags: number): void {
    this.#expression('fib', (writer) =>
      writer.attributeU32be(1, REG_1).attributeU32be(2, result).attributeU32be(3, flags),
    );
  }

  /** `NFTA_CMP_SREG` 1, `OP` 2, `DATA` 3. */
  compare(operation: number, value: Uint8Array): void {
    this.#expression('cmp', (writer) => {
      writer.attributeU32be(1, REG_1).attributeU32be(2, operation);
      encodeValueData(writer, 3, value);
    });
  }

  /** `NFTA_BITWISE_SREG` 1, `DREG` 2, `LEN` 3, `MASK` 4, `XOR` 5, `OP` 6: `(register & mask) ^ xor`. */
  bitwise(mask: Uint8Array, xor: Uint8Array): void {
    this.#expression('bitwise', (writer) => {
      writer
        .attributeU32be(1, REG_1)
        .attributeU32be(2, REG_1)
        .attributeU32be(3, mask.length)
        .attributeU32be(6, 0);
      encodeValueData(writer, 4, mask);
      encodeValueData(writer, 5, xor);
    });
  }

  /** `(x & mask) | value` as nft writes it: `(x & (mask & ~value)) ^ value`. */
  maskAndOr(mask: number, value: number): void {
    this.bitwise(hostU32(mask & ~value), hostU32(value));
  }

  /** `NFTA_BYTEORDER_SREG` 1, `DREG` 2, `OP` 3 (`HTON` 1), `LEN` 4, `SIZE` 5: as keys of intervals are compared. */
  toNetworkOrder(): void {
    this.#expression('byteorder', (writer) =>
      writer
        .attributeU32be(1, REG_1)
        .attributeU32be(2, REG_1)
        .attributeU32be(3, 1)
        .attributeU32be(4, 4)
        .attributeU32be(5, 4),
    );
  }

  /** `NFTA_LOOKUP_SET` 1, `SREG` 2, `DREG` 3: without a register for data, whether it is there. */
  lookup(map: string, register?: number): void {
    this.#expression('lookup', (writer) => {
      writer.attributeString(1, map).attributeU32be(2, REG_1);
      if (register !== undefined) writer.attributeU32be(3, register);
    });
  }

  /** `NFTA_LOOKUP_FLAGS` 5 (`NFT_LOOKUP_F_INV` 1): goes on where the set has no such key. */
  lookupMissing(set: string): void {
    this.#expression('lookup', (writer) =>
      writer.attributeString(1, set).attributeU32be(2, REG_1).attributeU32be(5, 1),
    );
  }

  /**
   * `NFTA_DYNSET_SET_NAME` 1, `OP` 3 (`NFT_DYNSET_OP_UPDATE` 1), `SREG_KEY` 4, `EXPR` 7: a limit for each key, which
   * goes on where it is exceeded.
   */
  updateLimit(set: string, perSecond: number, burst: number): void {
    this.#expression('dynset', (writer) =>
      writer
        .attributeString(1, set)
        .attributeU32be(3, 1)
        .attributeU32be(4, REG_1)
        .nest(7, () => {
          writer.attributeString(NFTA_EXPR_NAME, 'limit');
          writer.nest(NFTA_EXPR_DATA, () => limitData(writer, perSecond, burst, LIMIT_OVER));
        }),
    );
  }

  /** `NFTA_OBJREF_SET_SREG` 3, `SET_NAME` 4. */
  objectFromMap(map: string): void {
    this.#expression('objref', (writer) => writer.attributeU32be(3, REG_1).attributeString(4, map));
  }

  /** `NFTA_IMMEDIATE_DREG` 1, `DATA` 2. */
  immediate(value: Uint8Array): void {
    this.#expression('immediate', (writer) => {
      writer.attributeU32be(1, REG_1);
      encodeValueData(writer, 2, value);
    });
  }

  verdict(verdict: Verdict): void {
    this.#expression('immediate', (writer) => {
      writer.attributeU32be(1, REG_VERDICT);
      encodeVerdictData(writer, 2, verdict);
    });
  }

  /** `NFTA_OBJREF_IMM_TYPE` 1 (`NFT_OBJECT_COUNTER` 1), `IMM_NAME` 2. */
  counter(name: string): void {
    this.#expression('objref', (writer) => writer.attributeU32be(1, 1).attributeString(2, name));
  }

  limit(perSecond: number, burst: number): void {
    this.#expression('limit', (writer) => limitData(writer, perSecond, burst));
  }

  /** `NFTA_LOG_GROUP` 1, `PREFIX` 2, `SNAPLEN` 3. */
  log(prefix: string, group: number, snaplenBytes: number): void {
    this.#expression('log', (writer) =>
      writer.attributeU16be(1, group).attributeString(2, prefix).attributeU32be(3, snaplenBytes),
    );
  }

  /** `NFTA_REJECT_TYPE` 1, `ICMP_CODE` 2. */
  reject(type: number, code: number): void {
    this.#expression('reject', (writer) => writer.attributeU32be(1, type).attributeU8(2, code));
  }

  masquerade(): void {
    this.#expression('masq', () => {});
  }

  /** `NFTA_NAT_TYPE` 1 (`NFT_NAT_SNAT` 0), `FAMILY` 2, `REG_ADDR_MIN` 3. */
  snat(family: number): void {
    this.#expression('nat', (writer) =>
      writer.attributeU32be(1, 0).attributeU32be(2, family).attributeU32be(3, REG_1),
    );
  }
}
