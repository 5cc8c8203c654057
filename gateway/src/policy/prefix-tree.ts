import type { Family } from '../net/family.js';
import { type Block, bitAt, compareWords, increment, lastOf, WORDS, type Words } from '../net/words.js';

/** Addresses from one start to the next, each stretch with a state; no two neighbours have the same. */
export class Runs {
  readonly words: number;
  starts: Uint32Array;
  states: Uint32Array;
  length = 0;

  constructor(words: number, capacity = 1024) {
    this.words = words;
    this.starts = new Uint32Array(capacity * words);
    this.states = new Uint32Array(capacity);
  }

  /** What follows from `start` on has `state`; a stretch that would be empty goes. Starts must not descend. */
  push(start: Words, state: number): void {
    const { words } = this;
    if (this.length > 0 && compareWords(start, this.starts, (this.length - 1) * words) === 0) this.length--;
    if (this.length > 0 && this.states[this.length - 1] === state) return;
    if (this.length === this.states.length) {
      const starts = new Uint32Array(this.starts.length * 2);
      starts.set(this.starts);
      const states = new Uint32Array(this.states.length * 2);
      states.set(this.states);
      this.starts = starts;
      this.states = states;
    }
    this.starts.set(start, this.length * words);
    this.states[this.length++] = state;
  }

  /** Drops what begins after `last`. */
  endAt(last: Words): void {
    while (this.length > 0 && compareWords(last, this.starts, (this.length - 1) * this.words) < 0)
      this.length--;
  }
}

const NONE = -1;

/**
 * The prefixes of one family, each with a tag, as a binary tree without one-way branches. Prefixes nest, so what
 * holds for an address is what stands on its way down; a prefix that comes or goes changes what lies under it and
 * nothing else.
 *
 * Memory: about 17 bytes a node for IPv4 and 29 for IPv6, and up to two nodes a prefix.
 */
export class PrefixTree {
  readonly family: Family;
  readonly #words: number;
  #keys: Uint32Array;
  #lengths: Uint8Array;
  /** Children of node n at 2n and 2n + 1. */
  #children: Int32Array;
  #tags: Uint32Array;
  #root = NONE;
  #count = 0;
  readonly #free: number[] = [];

  constructor(family: Family) {
    this.family = family;
    this.#words = WORDS[family];
    const capacity = 64;
    this.#keys = new Uint32Array(capacity * this.#words);
    this.#lengths = new Uint8Array(capacity);
    this.#children = new Int32Array(capacity * 2);
    this.#tags = new Uint32Array(capacity);
  }

  #node({ words, length }: Block): number {
    let node = this.#free.pop();
    if (node === undefined) {
      node = this.#count++;
      if (node === this.#lengths.length) this.#grow();
    }
    this.#keys.set(words, node * this.#words);
    this.#lengths[node] = length;
    this.#children[2 * node] = NONE;
    this.#children[2 * node + 1] = NONE;
    this.#tags[node] = 0;
    return node;
  }

  #grow(): void {
    const capacity = this.#lengths.length * 2;
    const moved = <T extends Uint32Array | Uint8Array | Int32Array>(to: T, from: T): T => {
      to.set(from);
      return to;
    };
    this.#keys = moved(new Uint32Array(capacity * this.#words), this.#keys);
    this.#lengths = moved(new Uint8Array(capacity), this.#lengths);
    this.#children = moved(new Int32Array(capacity * 2), this.#children);
    this.#tags = moved(new Uint32Array(capacity), this.#tags);
  }

  #key(node: number): Words {
    return this.#keys.subarray(node * this.#words, (node + 1) * this.#words);
  }

  #block(node: number): Block {
    return { words: this.#key(node), length: this.#lengths[node]! };
  }

  /** How many leading bits a node and a block have in common, at most the length of either. */
  #common(node: number, { words, length }: Block): number {
    const most = Math.min(this.#lengths[node]!, length);
    for (let word = 0; word * 32 < most; word++) {
      const difference = this.#keys[node * this.#words + word]! ^ words[word]!;
      if (difference !== 0) return Math.min(most, word * 32 + Math.clz32(difference));
    }
    return most;
  }

  /** Changes the tag of a prefix; 0 is that of a prefix that is not there. Cost: the depth of the tree. */
  update(block: Block, change: (tag: number) => number): void {
    let link = NONE;
    let node = this.#root;
    while (node !== NONE) {
      const common = this.#common(node, block);
      if (common < this.#lengths[node]!) break;
      if (common === block.length) {
        this.#tags[node] = change(this.#tags[node]!);
        if (this.#tags[node] === 0) this.#prune(block);
        return;
      }
      link = 2 * node + bitAt(block.words, common);
      node = this.#children[link]!;
    }
    const tag = change(0);
    if (tag === 0) return;
    const added = this.#node(block);
    this.#tags[added] = tag;
    this.#link(link, node === NONE ? added : this.#join(node, added, block));
  }

  /** What stands where `node` stood: the new node itself above it, or a branch above both. */
  #join(node: number, added: number, block: Block): number {
    const common = this.#common(node, block);
    if (common === block.length) {
      this.#children[2 * added + bitAt(this.#key(node), common)] = node;
      return added;
    }
    const words = block.words.slice();
    for (let word = 0; word < words.length; word++) {
      const fixed = common - word * 32;
      if (fixed <= 0) words[word] = 0;
      else if (fixed < 32) words[word]! &= ~(0xffffffff >>> fixed);
    }
    const branch = this.#node({ words, length: common });
    this.#children[2 * branch + bitAt(block.words, common)] = added;
    this.#children[2 * branch + bitAt(this.#key(node), common)] = node;
    return branch;
  }

  #link(link: number, node: number): void {
    if (link === NONE) this.#root = node;
    else this.#children[link] = node;
  }

  /** Takes out the untagged node of a block, and the branch above it, where they branch no more. */
  #prune(block: Block): void {
    const links: number[] = [];
    const nodes: number[] = [];
    for (let link = NONE, node = this.#root; ; ) {
      links.push(link);
      nodes.push(node);
      if (this.#lengths[node] === block.length) break;
      link = 2 * node + bitAt(block.words, this.#lengths[node]!);
      node = this.#children[link]!;
    }
    for (let level = nodes.length - 1; level >= Math.max(0, nodes.length - 2); level--) {
      const node = nodes[level]!;
      const lower = this.#children[2 * node]!;
      const upper = this.#children[2 * node + 1]!;
      if (this.#tags[node] !== 0 || (lower !== NONE && upper !== NONE)) return;
      this.#link(links[level]!, lower === NONE ? upper : lower);
      this.#free.push(node);
    }
  }

  /**
   * Walks a block from its first address to its last: `into` gets the stretches in which `combine`, applied to
   * `state` and each tag on the way down, gives the same. Cost: the depth, and the prefixes inside the block.
   */
  sweep(block: Block, state: number, combine: (state: number, tag: number) => number, into: Runs): void {
    let node = this.#root;
    let outer = state;
    while (node !== NONE) {
      const common = this.#common(node, block);
      const length = this.#lengths[node]!;
      if (common < Math.min(length, block.length)) node = NONE;
      if (node === NONE || length >= block.length) break;
      if (this.#tags[node] !== 0) outer = combine(outer, this.#tags[node]!);
      node = this.#children[2 * node + bitAt(block.words, length)]!;
    }
    into.push(block.words, outer);
    if (node !== NONE) this.#sweepNode(node, outer, combine, into);
    into.endAt(lastOf(block));
  }

  #sweepNode(node: number, outer: number, combine: (state: number, tag: number) => number, into: Runs): void {
    const tag = this.#tags[node]!;
    const state = tag === 0 ? outer : combine(outer, tag);
    into.push(this.#key(node), state);
    for (const child of [this.#children[2 * node]!, this.#children[2 * node + 1]!]) {
      if (child !== NONE) this.#sweepNode(child, state, combine, into);
    }
    const next = lastOf(this.#block(node));
    if (increment(next)) into.push(next, outer);
  }
}
