import type { Family } from '../net/family.js';
import type { Prefix } from '../net/prefix.js';

/** Prefixes of one family as words in typed arrays, in the order of `comparePrefixes`. */
export interface SortedPrefixes {
  /** Words kept of each address: 1 for IPv4; 4 for IPv6, but 2 when no prefix is longer than /64. */
  readonly width: 1 | 2 | 4;
  /** `width` words a prefix, the most significant first. */
  readonly keys: Uint32Array;
  readonly lengths: Uint8Array;
  /** Position here -> index in the list that was sorted. */
  readonly order: Uint32Array;
}

/** How many prefixes there are. */
export function countOf(sorted: SortedPrefixes): number {
  return sorted.order.length;
}

const scratch = new DataView(new ArrayBuffer(16));

/** Splits an IPv6 address into four words, the most significant first, and stores them from `offset` on. */
export function storeWords6(value: bigint, words: Uint32Array, offset: number, width: number): void {
  scratch.setBigUint64(0, value >> 64n);
  words[offset] = scratch.getUint32(0);
  words[offset + 1] = scratch.getUint32(4);
  if (width === 2) return;
  scratch.setBigUint64(8, BigInt.asUintN(64, value));
  words[offset + 2] = scratch.getUint32(8);
  words[offset + 3] = scratch.getUint32(12);
}

/** Leading bits that the keys at two positions share, at most 32 * width. */
export function commonBits(sorted: SortedPrefixes, a: number, b: number): number {
  const { width, keys } = sorted;
  for (let word = 0; word < width; word++) {
    const difference = keys[a * width + word]! ^ keys[b * width + word]!;
    if (difference !== 0) return 32 * word + Math.clz32(difference);
  }
  return 32 * width;
}

/** Whether two positions hold the same prefix. */
export function samePrefix(sorted: SortedPrefixes, a: number, b: number): boolean {
  return sorted.lengths[a] === sorted.lengths[b] && commonBits(sorted, a, b) === 32 * sorted.width;
}

function widthFor(prefixes: readonly Prefix[], family: Family): 1 | 2 | 4 {
  if (family === 4) return 1;
  return prefixes.some((prefix) => prefix.family === 6 && prefix.length > 64) ? 4 : 2;
}

function isAscending(unsorted: SortedPrefixes): boolean {
  const { width, keys, lengths } = unsorted;
  for (let position = 1; position < lengths.length; position++) {
    let word = 0;
    while (word < width - 1 && keys[(position - 1) * width + word] === keys[position * width + word]) word++;
    const before = keys[(position - 1) * width + word]!;
    const after = keys[position * width + word]!;
    if (before > after || (before === after && lengths[position - 1]! > lengths[position]!)) return false;
  }
  return true;
}

/**
 * One pass of a radix sort: moves rows to `to`, stably, by one byte of what stands at `row * stride +
 * offset`. False, and nothing moved, when that byte is the same for all.
 */
function sortByByte(
  from: Uint32Array,
  to: Uint32Array,
  values: Uint32Array | Uint8Array,
  stride: number,
  offset: number,
  shift: number,
): boolean {
  const starts = new Uint32Array(257);
  for (let at = offset; at < values.length; at += stride) starts[((values[at]! >>> shift) & 0xff) + 1]!++;
  if (starts.includes(from.length)) return false;
  for (let byte = 0; byte < 256; byte++) starts[byte + 1]! += starts[byte]!;
  for (let position = 0; position < from.length; position++) {
    const row = from[position]!;
    const byte = (values[row * stride + offset]! >>> shift) & 0xff;
    to[starts[byte]!++] = row;
  }
  return true;
}

/** The rows in ascending order of (key, length): least significant byte first, each pass linear. */
function sortRows({ width, keys, lengths }: SortedPrefixes): Uint32Array {
  let rows = Uint32Array.from(lengths.keys());
  let spare = new Uint32Array(rows.length);
  const pass = (values: Uint32Array | Uint8Array, stride: number, offset: number, shift: number) => {
    if (sortByByte(rows, spare, values, stride, offset, shift)) [rows, spare] = [spare, rows];
  };
  pass(lengths, 1, 0, 0);
  for (let word = width - 1; word >= 0; word--) {
    for (let shift = 0; shift < 32; shift += 8) pass(keys, width, word, shift);
  }
  return rows;
}

/**
 * The prefixes of one family out of a list, sorted. Linear in the prefixes; equal ones stay, side by side.
 */
export function sortFamily(prefixes: readonly Prefix[], family: Family): SortedPrefixes {
  let count = 0;
  for (const prefix of prefixes) if (prefix.family === family) count++;
  const width = widthFor(prefixes, family);
  const keys = new Uint32Array(count * width);
  const lengths = new Uint8Array(count);
  const order = new Uint32Array(count);
  let row = 0;
  for (let index = 0; index < prefixes.length; index++) {
    const prefix = prefixes[index]!;
    if (prefix.family !== family) continue;
    if (family === 4) keys[row] = Number(prefix.value);
    else storeWords6(prefix.value, keys, row * width, width);
    lengths[row] = prefix.length;
    order[row] = index;
    row++;
  }
  const unsorted: SortedPrefixes = { width, keys, lengths, order };
  if (isAscending(unsorted)) return unsorted;

  const rows = sortRows(unsorted);
  const sortedKeys = new Uint32Array(keys.length);
  for (let position = 0; position < count; position++) {
    const from = rows[position]! * width;
    for (let word = 0; word < width; word++) sortedKeys[position * width + word] = keys[from + word]!;
  }
  return {
    width,
    keys: sortedKeys,
    lengths: lengths.map((_, position) => lengths[rows[position]!]!),
    order: order.map((_, position) => order[rows[position]!]!),
  };
}

/** A list without its duplicates, and where each member of the list went. */
export interface DistinctPrefixes {
  /** In the order of `comparePrefixes`. */
  readonly prefixes: readonly Prefix[];
  /** Index in the list -> index in `prefixes`. */
  readonly ids: Uint32Array;
}

/** Sorts a list and merges equal prefixes. Linear in the prefixes. */
export function distinctPrefixes(prefixes: readonly Prefix[]): DistinctPrefixes {
  const distinct: Prefix[] = [];
  const ids = new Uint32Array(prefixes.length);
  for (const family of [4, 6] as const) {
    const sorted = sortFamily(prefixes, family);
    for (let position = 0; position < countOf(sorted); position++) {
      const index = sorted.order[position]!;
      if (position === 0 || !samePrefix(sorted, position - 1, position)) distinct.push(prefixes[index]!);
      ids[index] = distinct.length - 1;
    }
  }
  return { prefixes: distinct, ids };
}
