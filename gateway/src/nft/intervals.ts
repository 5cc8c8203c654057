import { compareWords } from '../net/words.js';
import type { MapElement } from './program.js';

/**
 * Intervals of keys that cover a stretch without a hole, each from its start to the next, with a number each. In typed
 * arrays: eight bytes an interval for IPv4 addresses and marks, twenty for IPv6.
 */
export class Intervals implements Iterable<MapElement<number>> {
  /** 32-bit words, most significant first: four a key for IPv6, else one. */
  readonly starts: Uint32Array;
  readonly data: Uint32Array;
  /** The last key of the last interval. */
  readonly last: Uint32Array;
  readonly #words: number;

  constructor(starts: Uint32Array, data: Uint32Array, last: Uint32Array) {
    this.starts = starts;
    this.data = data;
    this.last = last;
    this.#words = last.length;
  }

  get length(): number {
    return this.data.length;
  }

  #value(words: Uint32Array, index: number): bigint {
    let value = 0n;
    for (let word = 0; word < this.#words; word++) {
      value = (value << 32n) | BigInt(words[index * this.#words + word]!);
    }
    return value;
  }

  at(index: number): MapElement<number> {
    const last =
      index + 1 < this.length ? this.#value(this.starts, index + 1) - 1n : this.#value(this.last, 0);
    return { first: this.#value(this.starts, index), last, data: this.data[index]! };
  }

  *[Symbol.iterator](): Iterator<MapElement<number>> {
    for (let index = 0; index < this.length; index++) yield this.at(index);
  }

  /** Whether interval `index` of this and interval `otherIndex` of another are the same. */
  #isSame(index: number, other: Intervals, otherIndex: number): boolean {
    if (this.data[index] !== other.data[otherIndex]) return false;
    for (let word = 0; word < this.#words; word++) {
      if (this.starts[index * this.#words + word] !== other.starts[otherIndex * this.#words + word])
        return false;
    }
    const isLast = index + 1 === this.length;
    if (isLast || otherIndex + 1 === other.length) return isLast && otherIndex + 1 === other.length;
    for (let word = 0; word < this.#words; word++) {
      const next = this.starts[(index + 1) * this.#words + word];
      if (next !== other.starts[(otherIndex + 1) * this.#words + word]) return false;
    }
    return true;
  }

  #compareStarts(index: number, other: Intervals, otherIndex: number): number {
    const words = this.#words;
    const start = this.starts.subarray(index * words, (index + 1) * words);
    return compareWords(start, other.starts, otherIndex * words);
  }

  /** Whether others, over the same block, are the same. */
  equals(other: Intervals): boolean {
    if (this.length !== other.length) return false;
    return (
      this.data.every((number, index) => number === other.data[index]) &&
      this.starts.every((word, index) => word === other.starts[index])
    );
  }

  /** The intervals that must go and come to make these into others over the same block. */
  changesTo(after: Intervals): {
    readonly remove: readonly MapElement<number>[];
    readonly add: readonly MapElement<number>[];
  } {
    const remove: MapElement<number>[] = [];
    const add: MapElement<number>[] = [];
    for (let old = 0, now = 0; old < this.length || now < after.length; ) {
      const isWithin = old < this.length && now < after.length;
      if (isWithin && this.#isSame(old, after, now)) {
        old++;
        now++;
        continue;
      }
      const order = isWithin ? this.#compareStarts(old, after, now) : old < this.length ? -1 : 1;
      if (order <= 0) remove.push(this.at(old++));
      if (order >= 0) add.push(after.at(now++));
    }
    return { remove, add };
  }
}
