import { MessageWriter } from '../netlink/writer.js';
import { encodeRule } from './encode.js';
import { encodeValueData, encodeVerdictData, limitData } from './expressions.js';
import { Intervals } from './intervals.js';
import {
  type BaseChain,
  type Chain,
  type ElementData,
  type LiveSet,
  type MapElement,
  type NamedLimit,
  type NftMap,
  TABLE,
} from './program.js';
import {
  DATA_ATTRIBUTES,
  END_KEY_OFFSET,
  type IntervalTemplate,
  intervalTemplate,
  KEY_TYPES,
  keyBytes,
  keyMax,
  liveKeyType,
  type MapShape,
  NFT_SET_ELEM_INTERVAL_END,
  NFT_SET_EVAL,
  NFT_SET_INTERVAL,
  NFT_SET_TIMEOUT,
  OBJECT_COUNTER,
  OBJECT_LIMIT,
  START_KEY_OFFSET,
  setUserData,
} from './set.js';
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

/**
 * `enum nft_table_flags`: nobody but the socket that made the table changes it, and it stays when that one is closed
 * (from Linux 6.9). Never the one without the other: the kernel deletes the table with its owner.
 */
export const TABLE_OWNER = 0x2;
export const TABLE_PERSIST = 0x4;
/** Its chains are hooked nowhere and see no packet. */
export const TABLE_DORMANT = 0x1;

/** `NFPROTO_INET`: one table for both families. */
export const NFPROTO_INET = 1;

/** `enum nf_inet_hooks`. */
export const HOOK_NUMBER: Readonly<Record<BaseChain['hook'], number>> = {
  prerouting: 0,
  input: 1,
  forward: 2,
  output: 3,
  postrouting: 4,
};

/** Elements of one message stay below the 65,535 bytes of a nested attribute, with room for the last of them. */
const ELEMENTS_BYTES_MAX = 60_000;

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

  /**
   * Adds the table where it isn't there yet. With flags it gets these, or must have them: the kernel gives an owner
   * only to a new table, or to one that a process with `TABLE_PERSIST` left behind.
   */
  addTable(flags?: number): this {
    return this.#message('add table', NFT_MSG.newTable, NLM_F_CREATE, (writer) => {
      writer.attributeString(1, TABLE);
      if (flags !== undefined) writer.attributeU32be(2, flags);
    });
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

  /** `NFTA_SET_DESC` 9 with `NFTA_SET_DESC_SIZE` 1, `NFTA_SET_TIMEOUT` 11 in milliseconds. */
  addLiveSet({ name, key, elementsMax, idleSeconds }: LiveSet): this {
    const id = ++this.#setId;
    const { id: type, bytes, userData } = liveKeyType(key);
    return this.#message(`add set "${name}"`, NFT_MSG.newSet, NLM_F_CREATE, (writer) => {
      writer
        .attributeString(1, TABLE)
        .attributeString(2, name)
        .attributeU32be(3, idleSeconds === undefined ? 0 : NFT_SET_TIMEOUT | NFT_SET_EVAL)
        .attributeU32be(4, type)
        .attributeU32be(5, bytes);
      if (idleSeconds !== undefined) writer.attributeU64be(11, BigInt(idleSeconds) * 1_000n);
      writer.attributeU32be(10, id).attributeBytes(13, userData);
      writer.nest(9, () => writer.attributeU32be(1, elementsMax));
    });
  }

  /** Deletes all elements of a set. */
  flushSet(name: string): this {
    return this.#message(`flush set "${name}"`, NFT_MSG.delSetElem, 0, (writer) =>
      writer.attributeString(1, TABLE).attributeString(2, name),
    );
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
        .nest(4, () => limitData(writer, perSecond, burstPackets)),
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
