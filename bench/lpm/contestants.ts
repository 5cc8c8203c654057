import { BlockList, SocketAddress } from 'node:net';
import IPCIDR from 'ip-cidr';
import { LinearTable } from 'sluice-gateway/matcher/linear.js';
import { PrefixTrie } from 'sluice-gateway/matcher/trie.js';
import { type Address, addressToBytes, printAddress } from 'sluice-gateway/net/address.js';
import { type Prefix, printPrefix } from 'sluice-gateway/net/prefix.js';

/** The addresses to look up, made ready for one table, so that no contestant is timed while it parses. */
export interface Query {
  /**
   * Looks up addresses `from` up to, not including, `end`. The sum keeps the work from being optimized away.
   */
  readonly sum: (from: number, end: number) => number;
  /** What `sum` adds for one address: the index of the longest prefix, or whether there is any (1 or 0). */
  readonly answer: (at: number) => number;
}

export interface LpmTable {
  readonly bytes?: number;
  readonly query: (addresses: readonly Address[]) => Query;
}

export interface LpmContestant {
  readonly name: string;
  /** `longest`: answers with the index of the longest prefix, -1 for none. `any`: with 1 or 0. */
  readonly answers: 'longest' | 'any';
  /** Prefixes with which it takes part at most: beyond, it would not finish. */
  readonly sizeMax: number;
  /** Lookups between two looks at the clock: one where a lookup takes long, many where the clock would. */
  readonly chunk: number;
  readonly build: (prefixes: readonly Prefix[]) => LpmTable;
}

function wordsOf(addresses: readonly Address[]): Uint32Array {
  const width = addresses[0]?.family === 6 ? 4 : 1;
  const words = new Uint32Array(width * addresses.length);
  for (const [index, address] of addresses.entries()) {
    const bytes = new DataView(addressToBytes(address).buffer);
    for (let word = 0; word < width; word++) words[index * width + word] = bytes.getUint32(4 * word);
  }
  return words;
}

function sumOf(answer: (at: number) => number): Query {
  return {
    answer,
    sum: (from, end) => {
      let sum = 0;
      for (let at = from; at < end; at++) sum += answer(at);
      return sum;
    },
  };
}

/** A loop over the trie alone, for the compiler to see both. */
function trieQuery(trie: PrefixTrie, addresses: readonly Address[]): Query {
  const words = wordsOf(addresses);
  if (addresses[0]?.family === 4) {
    const sum = (from: number, end: number) => {
      let total = 0;
      for (let at = from; at < end; at++) total = (total + trie.lookup4(words[at]!)) | 0;
      return total;
    };
    return { sum, answer: (at) => trie.lookup4(words[at]!) };
  }
  const lookup = (at: number) => trie.lookup6(words[at]!, words[at + 1]!, words[at + 2]!, words[at + 3]!);
  const sum = (from: number, end: number) => {
    let total = 0;
    for (let at = 4 * from; at < 4 * end; at += 4) total = (total + lookup(at)) | 0;
    return total;
  };
  return { sum, answer: (at) => lookup(4 * at) };
}

function batchQuery(trie: PrefixTrie, addresses: readonly Address[]): Query {
  const words = wordsOf(addresses);
  const found = new Int32Array(words.length);
  const sum = (from: number, end: number) => {
    trie.lookupMany4(words.subarray(from, end), found.subarray(from, end));
    return found[from]!;
  };
  const answer = (at: number) => {
    sum(at, at + 1);
    return found[at]!;
  };
  return { sum, answer };
}

const trie: LpmContestant = {
  name: 'sluice trie',
  answers: 'longest',
  sizeMax: Number.POSITIVE_INFINITY,
  chunk: 16_384,
  build: (prefixes) => {
    const built = PrefixTrie.build(prefixes);
    return { bytes: built.bytes, query: (addresses) => trieQuery(built, addresses) };
  },
};

const trieBatch: LpmContestant = {
  name: 'sluice trie, in batches',
  answers: 'longest',
  sizeMax: Number.POSITIVE_INFINITY,
  chunk: 16_384,
  build: (prefixes) => {
    const built = PrefixTrie.build(prefixes);
    return { bytes: built.bytes, query: (addresses) => batchQuery(built, addresses) };
  },
};

const linear: LpmContestant = {
  name: 'linear table',
  answers: 'longest',
  sizeMax: 1_000_000,
  chunk: 1,
  build: (prefixes) => {
    const table = LinearTable.build(prefixes);
    return { query: (addresses) => sumOf((at) => table.lookup(addresses[at]!)) };
  },
};

/**
 * Linear in Node 20, a radix trie since nodejs/node#64974: what it reaches depends on the version that runs.
 */
const blockList: LpmContestant = {
  name: 'net.BlockList',
  answers: 'any',
  sizeMax: 1_000_000,
  chunk: 1,
  build: (prefixes) => {
    const list = new BlockList();
    const type = (family: 4 | 6) => (family === 4 ? 'ipv4' : 'ipv6');
    for (const prefix of prefixes) list.addSubnet(printAddress(prefix), prefix.length, type(prefix.family));
    return {
      query: (addresses) => {
        const ready = addresses.map(
          (address) => new SocketAddress({ address: printAddress(address), family: type(address.family) }),
        );
        return sumOf((at) => Number(list.check(ready[at]!)));
      },
    };
  },
};

/**
 * ip-cidr is here because it is what people reach for; it knows single ranges, so a table is a list of them.
 */
const ipCidr: LpmContestant = {
  name: 'ip-cidr',
  answers: 'any',
  sizeMax: 100_000,
  chunk: 1,
  build: (prefixes) => {
    const ranges = prefixes.map((prefix) => new IPCIDR(printPrefix(prefix)));
    return {
      query: (addresses) => {
        const texts = addresses.map(printAddress);
        return sumOf((at) => Number(ranges.some((range) => range.contains(texts[at]!))));
      },
    };
  },
};

/** All who take part, ours first. Only IPv4 has a lookup in batches. */
export function contestantsFor(family: 4 | 6): readonly LpmContestant[] {
  return family === 4 ? [trie, trieBatch, linear, blockList, ipCidr] : [trie, linear, blockList, ipCidr];
}
