import { addressToBytes } from '../net/address.js';
import { increment, type Words } from '../net/words.js';
import { MessageWriter } from '../netlink/writer.js';
import { encodeValueData } from './expressions.js';
import type { Intervals } from './intervals.js';
import type { KeyType, LiveSet, NftMap } from './program.js';

/** `enum nft_set_flags`, `enum nft_set_elem_flags`. */
export const NFT_SET_INTERVAL = 0x4;
export const NFT_SET_MAP = 0x8;
export const NFT_SET_TIMEOUT = 0x10;
export const NFT_SET_EVAL = 0x20;
export const NFT_SET_OBJECT = 0x40;
export const NFT_SET_ELEM_INTERVAL_END = 1;

/** Byte orders as nft numbers them. */
const NO_ORDER = 0;
const HOST_ORDER = 1;
const NETWORK_ORDER = 2;

interface TypeOfKey {
  readonly id: number;
  readonly bytes: number;
  readonly order: number;
}

/** What nft calls the types: it needs ids and byte orders to list a map, the kernel only passes them on. */
export const KEY_TYPES: Readonly<Record<KeyType, TypeOfKey>> = {
  ipv4_addr: { id: 7, bytes: 4, order: NETWORK_ORDER },
  ipv6_addr: { id: 8, bytes: 16, order: NETWORK_ORDER },
  inet_proto: { id: 12, bytes: 1, order: NO_ORDER },
  inet_service: { id: 13, bytes: 2, order: NETWORK_ORDER },
  mark: { id: 19, bytes: 4, order: HOST_ORDER },
  classid: { id: 23, bytes: 4, order: HOST_ORDER },
};
export const NUMBER_BYTES = 4;
/** `NFT_DATA_VERDICT`. */
export const VERDICT_TYPE = 0xffffff00;
/** `NFT_OBJECT_COUNTER`, `NFT_OBJECT_LIMIT`. */
export const OBJECT_COUNTER = 1;
export const OBJECT_LIMIT = 4;

/** How the kernel is told of what a map leads to: attributes of a set, and flags. */
export const DATA_ATTRIBUTES: Readonly<
  Record<NftMap['data'], { readonly flags: number; readonly write: (writer: MessageWriter) => void }>
> = {
  mark: numberData(KEY_TYPES.mark.id),
  classid: numberData(KEY_TYPES.classid.id),
  verdict: {
    flags: NFT_SET_MAP,
    write: (writer) => writer.attributeU32be(6, VERDICT_TYPE).attributeU32be(7, 0),
  },
  counter: { flags: NFT_SET_OBJECT, write: (writer) => writer.attributeU32be(15, OBJECT_COUNTER) },
  limit: { flags: NFT_SET_OBJECT, write: (writer) => writer.attributeU32be(15, OBJECT_LIMIT) },
  none: { flags: 0, write: () => {} },
};

/** `NFTA_SET_DATA_TYPE` 6, `DATA_LEN` 7; of objects `NFTA_SET_OBJ_TYPE` 15. */
function numberData(type: number) {
  return {
    flags: NFT_SET_MAP,
    write: (writer: MessageWriter) => writer.attributeU32be(6, type).attributeU32be(7, NUMBER_BYTES),
  };
}

const DATA_NOTES: Readonly<Record<NftMap['data'], { readonly isMap: boolean; readonly order?: number }>> = {
  mark: { isMap: true, order: HOST_ORDER },
  classid: { isMap: true, order: HOST_ORDER },
  verdict: { isMap: true, order: NO_ORDER },
  counter: { isMap: true },
  limit: { isMap: true },
  none: { isMap: false },
};

const note = (type: number, value: number) => [type, 4, ...new Uint8Array(Uint32Array.of(value).buffer)];

const keyOrderNote = (order: number) => note(0, order);
/** `NFTNL_UDATA_SET_KEY_TYPEOF` 3 with `TYPEOF_EXPR` 0, nft's `EXPR_CONCAT`, and empty `TYPEOF_DATA` 1. */
const CONCATENATION_NOTE = [3, 8, ...note(0, 13), 1, 0];
/** nft's `TYPE_BITS`: the id of a concatenation is those of its parts, one after the other. */
const TYPE_BITS = 6;

/** How the kernel, and nft's notes, are told of the key of a live set: of one part, or several. */
export function liveKeyType(parts: LiveSet['key']) {
  const types = parts.map((part) => KEY_TYPES[part]);
  const [only, ...more] = types;
  return {
    id: types.reduce((id, type) => (id << TYPE_BITS) | type.id, 0),
    bytes: types.reduce((bytes, type) => bytes + type.bytes, 0),
    userData: Uint8Array.of(
      ...(more.length === 0 ? keyOrderNote(only!.order) : [...keyOrderNote(NO_ORDER), ...CONCATENATION_NOTE]),
    ),
  };
}

/**
 * nft's own notes on a set, which the kernel only keeps (`NFTNL_UDATA_SET_KEYBYTEORDER` 0, `DATABYTEORDER` 1,
 * `DATA_INTERVAL` 6 of libnftnl's udata.h): without them it lists marks byte-swapped.
 */
export function setUserData(map: NftMap): Uint8Array {
  const { isMap, order } = DATA_NOTES[map.data];
  return Uint8Array.of(
    ...keyOrderNote(KEY_TYPES[map.key].order),
    ...(order === undefined ? [] : note(1, order)),
    ...(isMap ? note(6, 0) : []),
  );
}

/** One map key as the kernel compares it: network byte order, but single marks in the machine's. */
export function keyBytes(type: KeyType, interval: boolean, value: bigint): Uint8Array {
  switch (type) {
    case 'ipv4_addr':
      return addressToBytes({ family: 4, value });
    case 'ipv6_addr':
      return addressToBytes({ family: 6, value });
    case 'inet_proto':
      return Uint8Array.of(Number(value));
    case 'inet_service':
      return Uint8Array.of(Number(value >> 8n), Number(value & 0xffn));
    case 'mark':
    case 'classid': {
      // Intervals are compared byte by byte: the rule turns its key to network order.
      const bytes = new Uint8Array(NUMBER_BYTES);
      new DataView(bytes.buffer).setUint32(0, Number(value), !interval);
      return bytes;
    }
    default:
      return type satisfies never;
  }
}

/** What of a map a change of its elements needs to know. */
export type MapShape = Pick<NftMap, 'name' | 'key' | 'interval'>;

/** Elements of an interval as bytes with room for key and data. `NFTA_SET_ELEM_KEY` 1, `DATA` 2, `FLAGS` 3. */
export interface IntervalTemplate {
  readonly start: Uint8Array;
  readonly end: Uint8Array;
  /** One past the last address of the map's intervals; undefined at the top of the address space. */
  readonly past: Words | undefined;
}
/** Behind the headers of element, key and value; the end has its flags before. */
export const START_KEY_OFFSET = 12;
export const END_KEY_OFFSET = 20;

export function intervalTemplate({ last }: Intervals): IntervalTemplate {
  const key = new Uint8Array(last.length * 4);
  const start = new MessageWriter(64);
  start.nest(1, () => {
    encodeValueData(start, 1, key);
    encodeValueData(start, 2, new Uint8Array(NUMBER_BYTES));
  });
  const end = new MessageWriter(64);
  end.nest(1, () => {
    end.attributeU32be(3, NFT_SET_ELEM_INTERVAL_END);
    encodeValueData(end, 1, key);
  });
  const past = last.slice();
  return { start: start.bytes(), end: end.bytes(), past: increment(past) ? past : undefined };
}

export const keyMax = (type: KeyType) => (1n << BigInt(KEY_TYPES[type].bytes * 8)) - 1n;
