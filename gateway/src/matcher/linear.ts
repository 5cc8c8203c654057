import type { Address } from '../net/address.js';
import { type Prefix, prefixContains } from '../net/prefix.js';
import { duplicateError, indexError, type PrefixTable } from './table.js';

/**
 * The slow twin of PrefixTrie: looks at every prefix. It is what the trie is held against, so it has to be
 * obvious, not fast: a lookup costs time linear in the prefixes.
 */
export class LinearTable implements PrefixTable {
  readonly #prefixes: readonly Prefix[];

  private constructor(prefixes: readonly Prefix[]) {
    this.#prefixes = prefixes;
  }

  /** Throws RangeError for a prefix that stands twice. */
  static build(prefixes: readonly Prefix[]): LinearTable {
    const seen = new Map<string, number>();
    for (const [index, prefix] of prefixes.entries()) {
      const key = `${prefix.family} ${prefix.value} ${prefix.length}`;
      const first = seen.get(key);
      if (first !== undefined) throw duplicateError(prefix, first, index);
      seen.set(key, index);
    }
    return new LinearTable([...prefixes]);
  }

  get size(): number {
    return this.#prefixes.length;
  }

  lookup4(address: number): number {
    return this.lookup({ family: 4, value: BigInt(address) });
  }

  lookup6(w0: number, w1: number, w2: number, w3: number): number {
    const value = [w0, w1, w2, w3].reduce((high, word) => (high << 32n) | BigInt(word), 0n);
    return this.lookup({ family: 6, value });
  }

  lookup(address: Address): number {
    return this.#longest((prefix) => prefixContains(prefix, address));
  }

  parent(index: number): number {
    const child = this.#prefixes[index];
    if (child === undefined) throw indexError(index, this.size);
    return this.#longest((prefix) => prefix.length < child.length && prefixContains(prefix, child));
  }

  #longest(accept: (prefix: Prefix) => boolean): number {
    let best = -1;
    for (const [index, prefix] of this.#prefixes.entries()) {
      if (accept(prefix) && (best < 0 || prefix.length > this.#prefixes[best]!.length)) best = index;
    }
    return best;
  }
}
