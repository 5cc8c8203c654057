import { countOf, type SortedPrefixes } from './sorted.js';

const LAST_ADDRESS = 0xffffffff;
const ROOT_BITS_MIN = 16;
const ROOT_BITS_MAX = 20;
/** Without a prefix there is nothing to tell apart. */
const ROOT_BITS_EMPTY = 1;
const IS_BLOCK = 0x80000000;

/** Addresses that `lookupMany` has under way at a time; its workspace fits the innermost cache. */
const BATCH = 256;
const entriesOfBatch = new Int32Array(BATCH);
const changesOfBatch = new Int32Array(BATCH);

/** The whole address space as runs of addresses with the same longest prefix, ascending from address 0. */
interface Runs {
  readonly count: number;
  readonly starts: Uint32Array;
  /** Index of the longest prefix, -1 for none. */
  readonly values: Int32Array;
}

/**
 * Flattens nested prefixes: every prefix opens one run and, where it ends, reopens that of the one around it.
 */
function runsOf({ keys, lengths, order }: SortedPrefixes): Runs {
  const starts = new Uint32Array(2 * keys.length + 1);
  const values = new Int32Array(2 * keys.length + 1);
  const openLasts: number[] = [];
  const openIndexes: number[] = [];
  let count = 0;
  const begin = (start: number, value: number) => {
    if (count > 0 && starts[count - 1] === start) count--;
    starts[count] = start;
    values[count++] = value;
  };
  const closeBefore = (address: number) => {
    while (openLasts.length > 0 && openLasts.at(-1)! < address) {
      const last = openLasts.pop()!;
      openIndexes.pop();
      if (last < LAST_ADDRESS) begin(last + 1, openIndexes.at(-1) ?? -1);
    }
  };
  begin(0, -1);
  for (let position = 0; position < keys.length; position++) {
    const start = keys[position]!;
    closeBefore(start);
    begin(start, order[position]!);
    openLasts.push(start + 2 ** (32 - lengths[position]!) - 1);
    openIndexes.push(order[position]!);
  }
  closeBefore(LAST_ADDRESS + 1);
  return { count, starts, values };
}

/** Slots that the blocks under a root of so many bits take together. */
function blockSlots({ count, starts }: Runs, rootBits: number): number {
  const shift = 32 - rootBits;
  const lowMask = 2 ** shift - 1;
  let inside = 0;
  let blocks = 0;
  let lastBlock = -1;
  for (let run = 0; run < count; run++) {
    const start = starts[run]!;
    if ((start & lowMask) === 0) continue;
    inside++;
    if (start >>> shift === lastBlock) continue;
    lastBlock = start >>> shift;
    blocks++;
  }
  return 3 * (inside + blocks);
}

/** The widest root that keeps root and blocks within `bytesMax`, and never less than the narrowest. */
function chooseRootBits(runs: Runs, bytesMax: number): number {
  for (let bits = ROOT_BITS_MAX; bits > ROOT_BITS_MIN; bits--) {
    if (4 * 2 ** bits + 2 * blockSlots(runs, bits) <= bytesMax) return bits;
  }
  return ROOT_BITS_MIN;
}

/** The answer for an address inside a block. */
function search(blocks: Uint16Array, block: number, changes: number, low: number): number {
  let found = block;
  for (let rest = changes + 1; rest > 1; ) {
    // No branch on what was read, since no processor can guess it: the sign of the difference, as a mask.
    const half = rest >>> 1;
    found += half & ((blocks[found + half]! - low - 1) >> 31);
    rest -= half;
  }
  const value = block + changes + 1 + 2 * (found - block);
  return blocks[value]! | (blocks[value + 1]! << 16);
}

/**
 * IPv4 half of PrefixTrie: a trie of two levels. The root is indexed by the first 16 to 20 bits; the second
 * level holds, in place of all the addresses under a root entry, only those where the answer changes (the
 * idea of Zec, Rizzo, Mikuc, "DXR", 2012). A lookup reads one root entry and searches at most one block.
 *
 *     address   |<-- rootBits -->|<------- low ------->|
 *     root[i]   0 vvv...v        answer for every address below: v - 1, so that 0 is none
 *               1 ooo...o        block at slot o
 *     block     | n | low 1 | ... | low n | value 0 | ... | value n |       16-bit slots, a value takes two
 *
 * Value i answers from low i on, value 0 from the start of the block.
 *
 * Bytes: n prefixes make at most 2n runs of 6 bytes, one block more costs 6, one root entry 4. With r root
 * bits at most 12n + 10 * 2^r, so a root with 2^r <= n/2 always fits 17 bytes a prefix. The least root takes
 * 256 KiB.
 */
export class Trie4 {
  readonly #root: Int32Array;
  readonly #blocks: Uint16Array;
  readonly #shift: number;
  readonly #lowMask: number;

  /** `bytesMax` chooses how wide the root may be; the answers don't depend on it. */
  constructor(sorted: SortedPrefixes, bytesMax: number) {
    const runs = runsOf(sorted);
    const rootBits = countOf(sorted) === 0 ? ROOT_BITS_EMPTY : chooseRootBits(runs, bytesMax);
    this.#shift = 32 - rootBits;
    this.#lowMask = 2 ** this.#shift - 1;
    this.#root = new Int32Array(2 ** rootBits);
    // One slot at least: `lookupMany` reads slot 0 for addresses that need no block.
    this.#blocks = new Uint16Array(Math.max(1, blockSlots(runs, rootBits)));
    this.#fill(runs);
  }

  get bytes(): number {
    return this.#root.byteLength + this.#blocks.byteLength;
  }

  /** Index of the longest prefix that holds the address, or -1. */
  lookup(address: number): number {
    const entry = this.#root[address >>> this.#shift]!;
    if (entry >= 0) return entry - 1;
    const block = entry & ~IS_BLOCK;
    return search(this.#blocks, block, this.#blocks[block]!, address & this.#lowMask);
  }

  /**
   * As `lookup` for each of `addresses`, into `found`. About twice as fast with a million prefixes: the
   * memory accesses of a whole batch are under way together, where one lookup would wait for each of its own.
   */
  lookupMany(addresses: Uint32Array, found: Int32Array): void {
    const [root, blocks, shift] = [this.#root, this.#blocks, this.#shift];
    for (let first = 0; first < addresses.length; first += BATCH) {
      const end = Math.min(first + BATCH, addresses.length);
      for (let i = first; i < end; i++) entriesOfBatch[i - first] = root[addresses[i]! >>> shift]!;
      for (let i = 0; i < end - first; i++) {
        const entry = entriesOfBatch[i]!;
        changesOfBatch[i] = blocks[entry & ~IS_BLOCK & (entry >> 31)]!;
      }
      for (let i = first; i < end; i++) {
        const entry = entriesOfBatch[i - first]!;
        found[i] =
          entry >= 0
            ? entry - 1
            : search(blocks, entry & ~IS_BLOCK, changesOfBatch[i - first]!, addresses[i]! & this.#lowMask);
      }
    }
  }

  #fill({ count, starts, values }: Runs): void {
    const size = this.#lowMask + 1;
    let run = 0;
    let value = -1;
    let block = 0;
    for (let entry = 0; entry < this.#root.length; entry++) {
      const start = entry * size;
      if (run < count && starts[run] === start) value = values[run++]!;
      let end = run;
      while (end < count && starts[end]! < start + size) end++;
      if (end === run) {
        this.#root[entry] = value + 1;
        continue;
      }
      this.#root[entry] = block | IS_BLOCK;
      const changes = end - run;
      this.#blocks[block] = changes;
      let slot = block + changes + 1;
      const store = (answer: number) => {
        this.#blocks[slot++] = answer;
        this.#blocks[slot++] = answer >>> 16;
      };
      store(value);
      for (let change = 1; change <= changes; change++, run++) {
        this.#blocks[block + change] = starts[run]! & this.#lowMask;
        value = values[run]!;
        store(value);
      }
      block = slot;
    }
  }
}
