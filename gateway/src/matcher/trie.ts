import type { Address } from '../net/address.js';
import type { Prefix } from '../net/prefix.js';
import { commonBits, countOf, type SortedPrefixes, samePrefix, sortFamily, storeWords6 } from './sorted.js';
import { duplicateError, indexError, type PrefixTable } from './table.js';
import { Trie4 } from './trie4.js';
import { type PrefixLinks, Trie6 } from './trie6.js';

/** What Trie4's root may bring the arrays to, all told, for each IPv4 prefix. */
const BYTES_PER_PREFIX4_MAX = 24;
const LINK_BYTES_PER_PREFIX = 5;

/** Fills in lengths and parents of one family: in sorted order, whatever covers a prefix came before it. */
function link(sorted: SortedPrefixes, prefixes: readonly Prefix[], links: PrefixLinks): void {
  const { lengths, order } = sorted;
  const open: number[] = [];
  for (let position = 0; position < countOf(sorted); position++) {
    const index = order[position]!;
    if (position > 0 && samePrefix(sorted, position - 1, position)) {
      const [first, second] = [order[position - 1]!, index].sort((a, b) => a - b) as [number, number];
      throw duplicateError(prefixes[index]!, first, second);
    }
    while (open.length > 0 && commonBits(sorted, open.at(-1)!, position) < lengths[open.at(-1)!]!) open.pop();
    links.lengths[index] = lengths[position]!;
    links.parents[index] = open.length > 0 ? order[open.at(-1)!]! : -1;
    open.push(position);
  }
}

/**
 * Longest-prefix match for both families over typed arrays; immutable. A build is linear in the prefixes, a
 * lookup allocates nothing. Built from prefixes that are sorted already (`sortPrefixes`, `distinctPrefixes`)
 * it is built sooner and IPv6 prefixes take 4 bytes less each. How it works is told by Trie4 and Trie6.
 */
export class PrefixTrie implements PrefixTable {
  readonly #links: PrefixLinks;
  readonly #trie4: Trie4;
  readonly #trie6: Trie6;
  readonly #words = new Uint32Array(4);

  private constructor(links: PrefixLinks, trie4: Trie4, trie6: Trie6) {
    this.#links = links;
    this.#trie4 = trie4;
    this.#trie6 = trie6;
  }

  /** Throws RangeError for a prefix that stands twice. */
  static build(prefixes: readonly Prefix[]): PrefixTrie {
    const sorted4 = sortFamily(prefixes, 4);
    const sorted6 = sortFamily(prefixes, 6);
    const links: PrefixLinks = {
      parents: new Int32Array(prefixes.length),
      lengths: new Uint8Array(prefixes.length),
    };
    link(sorted4, prefixes, links);
    link(sorted6, prefixes, links);
    const bytesMax4 = (BYTES_PER_PREFIX4_MAX - LINK_BYTES_PER_PREFIX) * countOf(sorted4);
    return new PrefixTrie(links, new Trie4(sorted4, bytesMax4), new Trie6(sorted6, links));
  }

  get size(): number {
    return this.#links.parents.length;
  }

  /** Memory of the arrays. */
  get bytes(): number {
    const { parents, lengths } = this.#links;
    return parents.byteLength + lengths.byteLength + this.#trie4.bytes + this.#trie6.bytes;
  }

  lookup4(address: number): number {
    return this.#trie4.lookup(address);
  }

  /** `lookup4` for each of `addresses`, into `found`, which has to be as long: less waiting for memory. */
  lookupMany4(addresses: Uint32Array, found: Int32Array): void {
    this.#trie4.lookupMany(addresses, found);
  }

  lookup6(w0: number, w1: number, w2: number, w3: number): number {
    return this.#trie6.lookup(w0, w1, w2, w3);
  }

  lookup(address: Address): number {
    if (address.family === 4) return this.lookup4(Number(address.value));
    const words = this.#words;
    storeWords6(address.value, words, 0, 4);
    return this.lookup6(words[0]!, words[1]!, words[2]!, words[3]!);
  }

  parent(index: number): number {
    const parent = this.#links.parents[index];
    if (parent === undefined) throw indexError(index, this.size);
    return parent;
  }
}
