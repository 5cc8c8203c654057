import type { Family } from './family.js';
import type { Prefix } from './prefix.js';

/** 32-bit words of an address. */
export const WORDS: Readonly<Record<Family, number>> = { 4: 1, 6: 4 };

/** An address or the first address of a block, most significant word first. */
export type Words = Uint32Array;

/** The words of an address or prefix. */
export function wordsOf({ family, value }: { readonly family: Family; readonly value: bigint }): Words {
  if (family === 4) return Uint32Array.of(Number(value));
  const words = new Uint32Array(4);
  for (let word = 3, rest = value; word >= 0; word--, rest >>= 32n) words[word] = Number(rest & 0xffffffffn);
  return words;
}

/** Negative, zero or positive, as `a` is below, at or above the address at word `at` of `list`. */
export function compareWords(a: Words, list: Uint32Array, at: number): number {
  for (let word = 0; word < a.length; word++) {
    const difference = a[word]! - list[at + word]!;
    if (difference !== 0) return difference;
  }
  return 0;
}

/** An aligned stretch of addresses: a prefix in words. */
export interface Block {
  readonly words: Words;
  readonly length: number;
}

export const blockOf = (prefix: Prefix): Block => ({ words: wordsOf(prefix), length: prefix.length });

/** Bit number `bit` of words, 0 the most significant. */
export const bitAt = (words: Words, bit: number) => (words[bit >>> 5]! >>> (31 - (bit & 31))) & 1;

/** The last address of a block. */
export function lastOf({ words, length }: Block): Words {
  const last = words.slice();
  for (let word = 0; word < last.length; word++) {
    const fixed = length - word * 32;
    if (fixed <= 0) last[word] = 0xffffffff;
    else if (fixed < 32) last[word]! |= 0xffffffff >>> fixed;
  }
  return last;
}

/** Adds one in place; false where it was the last address of all. */
export function increment(words: Words): boolean {
  for (let word = words.length - 1; word >= 0; word--) {
    words[word]!++;
    if (words[word] !== 0) return true;
  }
  return false;
}

/** The two halves of a block. */
export function halvesOf({ words, length }: Block): readonly [Block, Block] {
  const upper = words.slice();
  upper[length >>> 5]! |= 1 << (31 - (length & 31));
  return [
    { words, length: length + 1 },
    { words: upper, length: length + 1 },
  ];
}

/** The whole address space of a family. */
export const wholeSpace = (family: Family): Block => ({ words: new Uint32Array(WORDS[family]), length: 0 });

/** The number that words stand for. */
export function valueOfWords(words: Words): bigint {
  let value = 0n;
  for (const word of words) value = (value << 32n) | BigInt(word);
  return value;
}
