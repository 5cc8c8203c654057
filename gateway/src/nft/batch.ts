import { addressToBytes } from '../net/address.js';
import { increment, type Words } from '../net/words.js';
import { MessageWriter } from '../netlink/writer.js';
import { encodeRule, encodeValueData, encodeVerdictData } from './encode.js';
import { Intervals } from './intervals.js';
import {
  type BaseChain,
  type Chain,
  type ElementData,
  type KeyType,
  type MapElement,
  type NamedLimit,
  type NftMap,
  TABLE,
} from './program.js';
import type { Rule } from './statement.js';

/** `NFNL_SUBSYS_NFTABLES << 8`. */
const SUBSYSTEM = 10 << 8;
/** `NFNL_MSG_BATCH_BEGIN`, `NFNL_MSG_BATCH_END`: their resource id is the subsystem. */
const BATCH_BEGIN = 0x10;
const BATCH_END = 0x11;
const NFNL_SUBSYS_NFTABLES = 10;

/** `enum nf_tables_msg_types`, with the subsystem. */
export const NFT_MSG = {
  newTable: SUBSYSTEM | 0,
  getTable: SUBSYSTEM | 1,
  delTable: SUBSYSTEM | 2,
  newChain: SUBSYSTEM | 3,
  getChain: SUBSYSTEM | 4,
  delChain: SUBSYSTEM | 5,
  newRule: SUBSYSTEM | 6,
  delRule: SUBSYSTEM | 8,
  newSet: SUBSYSTEM | 9,
  getSet: SUBSYSTEM | 10,
  delSet: SUBSYSTEM | 11,
  newSetElem: SUBSYSTEM | 12,
  delSetElem: SUBSYSTEM | 14,
  newGen: SUBSYSTEM | 15,
  getGen: SUBSYSTEM | 16,
  newObj: SUBSYSTEM | 18,
  getObj: SUBSYSTEM | 19,
  delObj: SUBSYSTEM | 20,
} as const;

const NLM_F_REQUEST = 0x1;
const NLM_F_ACK = 0x4;
const NLM_F_CREATE = 0x400;
const NLM_F_APPEND = 0x800;

/** `NFPROTO_INET`: one table for both families. */
export const NFPROTO_INET = 1;

/** `enum nf_inet_hooks`. */
const HOOK_NUMBER: Readonly<Record<BaseChain['hook'], number>> = {
  prerouting: 0,
  input: 1,
  forward: 2,
  postrouting: 4,
};

/** `enum nft_set_flags`, `enum nft_set_elem_flags`. */
const NFT_SET_INTERVAL = 0x4;
const NFT_SET_MAP = 0x8;
const NFT_SET_OBJECT = 0x40;
const NFT_SET_ELEM_INTERVAL_END = 1;

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
const KEY_TYPES: Readonly<Record<KeyType, TypeOfKey>> = {
  ipv4_addr: { id: 7, bytes: 4, order: NETWORK_ORDER },
  ipv6_addr: { id: 8, bytes: 16, order: NETWORK_ORDER },
  inet_proto: { id: 12, bytes: 1, order: NO_ORDER },
  inet_service: { id: 13, bytes: 2, order: NETWORK_ORDER },
  mark: { id: 19, bytes: 4, order: HOST_ORDER },
  classid: { id: 23, bytes: 4, order: HOST_ORDER },
};
const NUMBER_BYTES = 4;
/** `NFT_DATA_VERDICT`. */
const VERDICT_TYPE = 0xffffff00;
/** `NFT_OBJECT_COUNTER`, `NFT_OBJECT_LIMIT`. */
export const OBJECT_COUNTER = 1;
export const OBJECT_LIMIT = 4;

/** How the kernel is told of what a map leads to: attributes of a set, and flags. */
const DATA_ATTRIBUTES: Readonly<
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

/** Elements of one message stay below the 65,535 bytes of a nested attribute, with room for the last of them. */
const ELEMENTS_BYTES_MAX = 60_000;

const DATA_NOTES: Readonly<Record<NftMap['data'], { readonly isMap: boolean; readonly order?: number }>> = {
  mark: { isMap: true, order: HOST_ORDER },
  classid: { isMap: true, order: HOST_ORDER },
  verdict: { isMap: true, order: NO_ORDER },
  counter: { isMap: true },
  limit: { isMap: true },
  none: { isMap: false },
};

/**
 * nft's own notes on a set, which the kernel only keeps (`NFTNL_UDATA_SET_KEYBYTEORDER` 0, `DATABYTEORDER` 1,
 * `DATA_INTERVAL` 6 of libnftnl's udata.h): without them it lists marks byte-swapped.
 */
function setUserData(map: NftMap): Uint8Array {
  const note = (type: number, value: number) => [type, 4, ...new Uint8Array(Uint32Array.of(value).buffer)];
  const { isMap, order } = DATA_NOTES[map.data];
  return Uint8Array.of(
    ...note(0, KEY_TYPES[map.key].order),
    ...(order === undefined ? [] : note(1, order)),
    ...(isMap ? note(6, 0) : []),
  );
}

/** One map key as the kernel compares it: network byte order, but single marks in the machine's. */
function keyBytes(type: KeyType, interval: boolean, value: bigint): Uint8Array {
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
interface IntervalTemplate {
  readonly start: Uint8Array;
  readonly end: Uint8Array;
  /** One past the last address of the map's intervals; undefined at the top of the address space. */
  readonly past: Words | undefined;
}
/** Behind the headers of element, key and value; the end has its flags before. */
const START_KEY_OFFSET = 12;
const END_KEY_OFFSET = 20;

function intervalTemplate({ last }: Intervals): IntervalTemplate {
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

const keyMax = (type: KeyType) => (1n << BigInt(KEY_TYPES[type].bytes * 8)) - 1n;

/** One nf_tables transaction as bytes. Sequence numbers in it count from 1, so that an error names its message. */
export interface Transaction {
  readonly bytes: Uint8Array;
  /** The last message asks for an acknowledgement: when it has come, all errors have. */
  readonly lastSequence: number;
  /** What each message does, by sequence number, for error messages. */
  readonly operations: readonly string[];
}

/**
 * Builds one transaction: all of it takes effect, or nothing. Objects must be added before what refers to them.
 * The kernel answers the last message alone, unless one fails.
 */
export class Batch {
  readonly #writer = new MessageWriter(1 << 16);
  readonly #operations: string[] = ['begin'];
  #last = 0;
  #setId = 0;

  constructor() {
    this.#writer
      .beginMessage({ type: BATCH_BEGIN, flags: NLM_F_REQUEST, sequence: 0 })
      .netfilterHeader(0, NFNL_SUBSYS_NFTABLES)
      .endMessage();
  }

  get isEmpty(): boolean {
    return this.#operations.length === 1;
  }

  /** Bytes so far: a loader starts another transaction when one grows large. */
  get bytes(): number {
    return this.#writer.length;
  }

  #message(operation: string, type: number, flags: number, body: (writer: MessageWriter) => void): this {
    const sequence = this.#operations.push(operation) - 1;
    this.#last = this.#writer.length;
    this.#writer.beginMessage({ type, flags: NLM_F_REQUEST | flags, sequence }).netfilterHeader(NFPROTO_INET);
    body(this.#writer);
    this.#writer.endMessage();
    return this;
  }

  /** Adds the table where it isn't there yet. */
  addTable(): this {
    return this.#message('add table', NFT_MSG.newTable, NLM_F_CREATE, (writer) =>
      writer.attributeString(1, TABLE).attributeU32be(2, 0),
    );
  }

  deleteTable(): this {
    return this.#message('delete table', NFT_MSG.delTable, 0, (writer) => writer.attributeString(1, TABLE));
  }

  /** Adds a chain without its rules, where it isn't there yet. */
  addChain({ name, base }: Chain): this {
    return this.#message(`add chain "${name}"`, NFT_MSG.newChain, NLM_F_CREATE, (writer) => {
      writer.attributeString(1, TABLE).attributeString(3, name);
      if (base === undefined) return;
      writer.nest(4, () =>
        writer.attributeU32be(1, HOOK_NUMBER[base.hook]).attributeU32be(2, base.priority >>> 0),
      );
      writer.attributeU32be(5, base.policy === 'accept' ? 1 : 0).attributeString(7, base.type);
    });
  }

  addRule(chain: string, rule: Rule): this {
    return this.#message(`add rule to "${chain}"`, NFT_MSG.newRule, NLM_F_CREATE | NLM_F_APPEND, (writer) =>
      writer
        .attributeString(1, TABLE)
        .attributeString(2, chain)
        .nest(4, () => encodeRule(writer, rule)),
    );
  }

  addRules({ name, rules }: Chain): this {
    for (const rule of rules) this.addRule(name, rule);
    return this;
  }

  /** Deletes all rules of a chain. */
  flushChain(name: string): this {
    return this.#message(`flush chain "${name}"`, NFT_MSG.delRule, 0, (writer) =>
      writer.attributeString(1, TABLE).attributeString(2, name),
    );
  }

  deleteChain(name: string): this {
    return this.#message(`delete chain "${name}"`, NFT_MSG.delChain, 0, (writer) =>
      writer.attributeString(1, TABLE).attributeString(3, name),
    );
  }

  /** Adds a map without its elements. */
  addMap(map: NftMap): this {
    const id = ++this.#setId;
    const key = KEY_TYPES[map.key];
    return this.#message(`add map "${map.name}"`, NFT_MSG.newSet, NLM_F_CREATE, (writer) => {
      writer
        .attributeString(1, TABLE)
        .attributeString(2, map.name)
        .attributeU32be(3, DATA_ATTRIBUTES[map.data].flags | (map.interval ? NFT_SET_INTERVAL : 0))
        .attributeU32be(4, key.id)
        .attributeU32be(5, key.bytes);
      DATA_ATTRIBUTES[map.data].write(writer);
      writer.attributeU32be(10, id).attributeBytes(13, setUserData(map));
      const grows = 'grows' in map && map.grows === true;
      if (!map.interval && !grows) writer.nest(9, () => writer.attributeU32be(1, map.elements.length));
    });
  }

  #element(map: MapShape, key: bigint, data: ElementData, flags: number): void {
    const writer = this.#writer;
    writer.nest(1, () => {
      if (flags !== 0) writer.attributeU32be(3, flags);
      encodeValueData(writer, 1, keyBytes(map.key, map.interval, key));
      if (data === undefined) return;
      if (typeof data === 'number') encodeValueData(writer, 2, new Uint8Array(Uint32Array.of(data).buffer));
      else if (typeof data === 'string') writer.attributeString(9, data);
      else encodeVerdictData(writer, 2, data);
    });
  }

  /** An interval is two elements, the end one past its last key; at the top of the key space there is no end. */
  #interval(map: MapShape, { first, last, data }: MapElement<ElementData>): void {
    this.#element(map, first, data, 0);
    if (map.interval && last < keyMax(map.key)) {
      this.#element(map, last + 1n, undefined, NFT_SET_ELEM_INTERVAL_END);
    }
  }

  #elements(operation: string, type: number, flags: number, map: MapShape, write: () => void): this {
    return this.#message(`${operation} "${map.name}"`, type, flags, (writer) => {
      writer.attributeString(1, TABLE).attributeString(2, map.name).nest(3, write);
    });
  }

  /** Adds elements of a map from index `from` on, in one message, and returns the index after the last it took. */
  addElements(map: NftMap, from = 0): number {
    let next = from;
    this.#elements('add elements to', NFT_MSG.newSetElem, NLM_F_CREATE, map, () => {
      const start = this.#writer.length;
      const { elements } = map;
      const template = elements instanceof Intervals ? intervalTemplate(elements) : undefined;
      while (next < elements.length && this.#writer.length - start < ELEMENTS_BYTES_MAX) {
        if (template !== undefined) this.#packedInterval(elements as Intervals, next++, template);
        else this.#interval(map, (elements as readonly MapElement<ElementData>[])[next++]!);
      }
    });
    return next;
  }

  /** Adds few elements to a map that is there. */
  addSomeElements(map: MapShape, elements: readonly MapElement<ElementData>[]): this {
    return this.#someElements('add elements to', NFT_MSG.newSetElem, NLM_F_CREATE, map, elements);
  }

  /** Deletes elements, by their keys. Each must be there. */
  deleteElements(map: MapShape, elements: readonly MapElement<ElementData>[]): this {
    const keys = elements.map(({ first, last }) => ({ first, last, data: undefined }));
    return this.#someElements('delete elements of', NFT_MSG.delSetElem, 0, map, keys);
  }

  #someElements(
    operation: string,
    type: number,
    flags: number,
    map: MapShape,
    elements: readonly MapElement<ElementData>[],
  ): this {
    for (let next = 0; next < elements.length; ) {
      this.#elements(operation, type, flags, map, () => {
        const start = this.#writer.length;
        while (next < elements.length && this.#writer.length - start < ELEMENTS_BYTES_MAX) {
          this.#interval(map, elements[next++]!);
        }
      });
    }
    return this;
  }

  /** The same bytes as `#interval` writes, a template filled in: an interval in a tenth of a microsecond. */
  #packedInterval(elements: Intervals, index: number, template: IntervalTemplate): void {
    const words = elements.last.length;
    const { view, offset } = this.#writer.template(template.start);
    for (let word = 0; word < words; word++) {
      view.setUint32(offset + START_KEY_OFFSET + 4 * word, elements.starts[index * words + word]!);
    }
    view.setUint32(offset + START_KEY_OFFSET + 4 * words + 8, elements.data[index]!, true);
    const end = index + 1 < elements.length ? index + 1 : undefined;
    const past = end === undefined ? template.past : undefined;
    if (end === undefined && past === undefined) return;
    const written = this.#writer.template(template.end);
    for (let word = 0; word < words; word++) {
      const value = past === undefined ? elements.starts[end! * words + word]! : past[word]!;
      written.view.setUint32(written.offset + END_KEY_OFFSET + 4 * word, value);
    }
  }

  deleteMap(name: string): this {
    return this.#message(`delete map "${name}"`, NFT_MSG.delSet, 0, (writer) =>
      writer.attributeString(1, TABLE).attributeString(2, name),
    );
  }

  /** Adds a named counter where it isn't there yet; one that is keeps its value. */
  addCounter(name: string): this {
    return this.#message(`add counter "${name}"`, NFT_MSG.newObj, NLM_F_CREATE, (writer) =>
      writer
        .attributeString(1, TABLE)
        .attributeString(2, name)
        .attributeU32be(3, OBJECT_COUNTER)
        .nest(4, () => {}),
    );
  }

  /** Adds a named limit where it isn't there yet. */
  addLimit({ name, perSecond, burstPackets }: NamedLimit): this {
    return this.#message(`add limit "${name}"`, NFT_MSG.newObj, NLM_F_CREATE, (writer) =>
      writer
        .attributeString(1, TABLE)
        .attributeString(2, name)
        .attributeU32be(3, OBJECT_LIMIT)
        .nest(4, () =>
          writer
            .attributeU64be(1, BigInt(perSecond))
            .attributeU64be(2, 1n)
            .attributeU32be(3, burstPackets)
            .attributeU32be(4, 0)
            .attributeU32be(5, 0),
        ),
    );
  }

  deleteLimit(name: string): this {
    return this.#message(`delete limit "${name}"`, NFT_MSG.delObj, 0, (writer) =>
      writer.attributeString(1, TABLE).attributeString(2, name).attributeU32be(3, OBJECT_LIMIT),
    );
  }

  deleteCounter(name: string): this {
    return this.#message(`delete counter "${name}"`, NFT_MSG.delObj, 0, (writer) =>
      writer.attributeString(1, TABLE).attributeString(2, name).attributeU32be(3, OBJECT_COUNTER),
    );
  }

  /** Ends the batch. Not to be added to afterwards. */
  finish(): Transaction {
    const lastSequence = this.#operations.length - 1;
    this.#writer
      .beginMessage({ type: BATCH_END, flags: NLM_F_REQUEST, sequence: lastSequence + 1 })
      .netfilterHeader(0, NFNL_SUBSYS_NFTABLES)
      .endMessage();
    const bytes = this.#writer.bytes();
    const flags = new DataView(bytes.buffer, bytes.byteOffset + this.#last + 6, 2);
    flags.setUint16(0, flags.getUint16(0, true) | NLM_F_ACK, true);
    return { bytes, lastSequence, operations: this.#operations };
  }
}
