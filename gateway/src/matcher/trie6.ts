import { commonBits, countOf, type SortedPrefixes } from './sorted.js';

const IS_NODE = 0x80000000 | 0;
/** Keys that a leaf may hold before it becomes a node. */
const LEAF_KEYS_MAX = 16;
/** Share of a node's slots that must have keys of their own, unless there are only two. */
const FILL_MIN = 0.5;
/** Keys that a node must have for each of its slots, unless there are only two. */
const KEYS_PER_SLOT_MIN = 4;

/** What lookups of both families need to know of a prefix, by its index in the list. */
export interface PrefixLinks {
  readonly parents: Int32Array;
  readonly lengths: Uint8Array;
}

/**
 * Grows the nodes over the sorted keys; see Trie6 for the layout. Two words a slot: `first`, then `kind`.
 */
class NodeBuilder {
  readonly #sorted: SortedPrefixes;
  /** Bits that the key at a position shares with the one before it. */
  readonly #shared: Uint8Array;
  #slots = new Int32Array(1024);
  #used = 1;

  constructor(sorted: SortedPrefixes) {
    this.#sorted = sorted;
    this.#shared = new Uint8Array(countOf(sorted));
    for (let position = 1; position < countOf(sorted); position++) {
      this.#shared[position] = commonBits(sorted, position - 1, position);
    }
  }

  build(): Int32Array {
    this.#grow(0, 0, countOf(this.#sorted));
    return this.#slots.slice(0, 2 * this.#used);
  }

  /** Makes a slot answer for the keys from `first` up to, not including, `end`. */
  #grow(slot: number, first: number, end: number): void {
    if (end - first <= LEAF_KEYS_MAX) {
      this.#leaf(slot, first, end - first);
      return;
    }
    const depth = commonBits(this.#sorted, first, end - 1);
    if (depth === 32 * this.#sorted.width) {
      // All start at the same address: the last is the longest and the others are around it.
      this.#leaf(slot, end - 1, 1);
      return;
    }
    const bits = this.#chooseBits(first, end, depth);
    const shift = 32 - (depth & 31) - bits;
    const word = depth >>> 5;
    const base = this.#allocate(2 ** bits);
    this.#slots[2 * slot] = base;
    this.#slots[2 * slot + 1] = IS_NODE | (word << 10) | (shift << 5) | bits;

    const { width, keys } = this.#sorted;
    let from = first;
    for (let branch = 0; branch < 2 ** bits; branch++) {
      let to = from;
      while (to < end && ((keys[to * width + word]! >>> shift) & (2 ** bits - 1)) === branch) to++;
      if (to === from) this.#leaf(base + branch, Math.max(from - 1, first), 1);
      else this.#grow(base + branch, from, to);
      from = to;
    }
  }

  /** The most bits below `depth`, within one word, whose slots still hold enough; 1 always does. */
  #chooseBits(first: number, end: number, depth: number): number {
    const bitsMax = 32 - (depth & 31);
    const splits = new Uint32Array(bitsMax + 1);
    for (let position = first + 1; position < end; position++) {
      splits[Math.min(this.#shared[position]! - depth, bitsMax)]!++;
    }
    let best = 1;
    let filled = 1;
    for (let bits = 1; bits <= bitsMax; bits++) {
      filled += splits[bits - 1]!;
      const slots = 2 ** bits;
      if (filled >= FILL_MIN * slots && end - first >= KEYS_PER_SLOT_MIN * slots) best = bits;
    }
    return best;
  }

  #leaf(slot: number, first: number, count: number): void {
    this.#slots[2 * slot] = first;
    this.#slots[2 * slot + 1] = count;
  }

  #allocate(count: number): number {
    const base = this.#used;
    this.#used += count;
    if (2 * this.#used > this.#slots.length) {
      const grown = new Int32Array(Math.max(4 * this.#used, 2 * this.#slots.length));
      grown.set(this.#slots);
      this.#slots = grown;
    }
    return base;
  }
}

/**
 * IPv6 half of PrefixTrie: a path- and level-compressed trie (Nilsson, Karlsson, "IP-Address Lookup Using
 * LC-Tries", 1999) whose leaves are stretches of the sorted keys.
 *
 *     slot   | first : 32 | 1 0...0 word : 2 shift : 5 bits : 5 |   node: go on at slot first + those bits
 *            | first : 32 | 0 0...0 count                       |   leaf: keys first to first + count - 1
 *     key    | width words |   lengths, parents: 5 bytes a prefix, by index in the list
 *
 * A descent looks only at the bits that branch. At its end the last key not above the address is taken (or
 * the first, if all are above), and the bits that it shares with the address tell which of it and the
 * prefixes around it is the longest that holds the address. That is right even where the address left the
 * path at a bit nobody looked at: then all keys below share the same bits with it, and a prefix that holds it
 * lies around all of them. A branch without keys is a leaf with the nearest key of its node.
 *
 * Bytes a prefix: 16 for the key (8 if none is longer than /64), 5 for parent and length, 8 a slot. A node of
 * n keys has at most n/4 slots, or two; `bench lpm` finds 22 to 23.3 bytes in all, for 1k to 1M sorted
 * prefixes up to /128. Prefixes made to branch one by one can take more.
 */
export class Trie6 {
  readonly #slots: Int32Array;
  readonly #keys: Uint32Array;
  readonly #width: number;
  readonly #links: PrefixLinks;
  /** Index of position 0, when indexes run as positions do; else `#order` maps them. */
  readonly #base: number;
  readonly #order: Uint32Array | undefined;

  constructor(sorted: SortedPrefixes, links: PrefixLinks) {
    this.#keys = sorted.keys;
    this.#width = sorted.width;
    this.#links = links;
    this.#slots = new NodeBuilder(sorted).build();
    this.#base = sorted.order[0] ?? 0;
    const inOrder = sorted.order.every((index, position) => index === this.#base + position);
    this.#order = inOrder ? undefined : sorted.order;
  }

  /** Without the links, which belong to both families. */
  get bytes(): number {
    return this.#slots.byteLength + this.#keys.byteLength + (this.#order?.byteLength ?? 0);
  }

  /** Index of the longest prefix that holds the address, or -1. Words are unsigned. */
  lookup(w0: number, w1: number, w2: number, w3: number): number {
    const slots = this.#slots;
    let slot = 0;
    let kind = slots[1]!;
    while (kind < 0) {
      const at = (kind >>> 10) & 3;
      const word = at === 0 ? w0 : at === 1 ? w1 : at === 2 ? w2 : w3;
      slot = slots[2 * slot]! + ((word >>> ((kind >>> 5) & 31)) & ((1 << (kind & 31)) - 1));
      kind = slots[2 * slot + 1]!;
    }
    if (kind === 0) return -1;
    let position = slots[2 * slot]!;
    for (let rest = kind; rest > 1; ) {
      const half = rest >>> 1;
      if (!this.#isAbove(position + half, w0, w1, w2, w3)) position += half;
      rest -= half;
    }
    const common = this.#commonBits(position, w0, w1, w2, w3);
    const { lengths, parents } = this.#links;
    let index = this.#order === undefined ? this.#base + position : this.#order[position]!;
    while (index >= 0 && lengths[index]! > common) index = parents[index]!;
    return index;
  }

  #isAbove(position: number, w0: number, w1: number, w2: number, w3: number): boolean {
    const keys = this.#keys;
    const at = position * this.#width;
    if (keys[at] !== w0) return keys[at]! > w0;
    if (this.#width === 2 || keys[at + 1] !== w1) return keys[at + 1]! > w1;
    if (keys[at + 2] !== w2) return keys[at + 2]! > w2;
    return keys[at + 3]! > w3;
  }

  #commonBits(position: number, w0: number, w1: number, w2: number, w3: number): number {
    const keys = this.#keys;
    const at = position * this.#width;
    if (keys[at] !== w0) return Math.clz32(keys[at]! ^ w0);
    if (keys[at + 1] !== w1) return 32 + Math.clz32(keys[at + 1]! ^ w1);
    if (this.#width === 2) return 64;
    if (keys[at + 2] !== w2) return 64 + Math.clz32(keys[at + 2]! ^ w2);
    return 96 + Math.clz32(keys[at + 3]! ^ w3);
  }
}
