import { BlockList, SocketAddress } from 'node:net';
import IPCIDR from 'ip-cidr';
import { LinearTable } from 'sluice-gateway/matcher/linear.js';
import { PrefixTrie } from 'sluice-gateway/matcher/trie.js';
import { type Address, printAddress } from 'sluice-gateway/net/address.js';
import { type Prefix, printPrefix } from 'sluice-gateway/net/prefix.js';
import { wordsOf } from '../data/addresses.js';
import { canCompile } from '../program.js';
import { RTE_LPM, rteContestants } from './rte-lpm.js';

/** The addresses to look up, made ready for one table, so that no contestant is timed while it parses. */
export interface Query {
  /** Looks up a piece of the addresses and gives how many, going on where the call before it ended. */
  readonly turn: () => number | Promise<number>;
  /** The index of the longest prefix, or whether there is any (1 or 0). */
  readonly answer: (at: number) => number;
}

export interface LpmTable {
  readonly bytes?: number;
  /** Where the contestant has a clock of its own. */
  readonly buildSeconds?: number;
  readonly query: (addresses: readonly Address[]) => Query | Promise<Query>;
  readonly close?: () => Promise<void>;
}

export interface LpmContestant {
  readonly name: string;
  /** `longest`: answers with the index of the longest prefix, -1 for none. `any`: with 1 or 0. */
  readonly answers: 'longest' | 'any';
  /** Prefixes with which it takes part at most: beyond, it would not finish. */
  readonly sizeMax: number;
  /** Whether a lookup takes so long that not all answers can be checked. */
  readonly slow: boolean;
  readonly build: (prefixes: readonly Prefix[]) => LpmTable | Promise<LpmTable>;
}

/** Lookups between two looks at the clock, where the clock would take longer than one. */
const CHUNK = 16_384;

/**
 * A query by a function that looks up addresses `from` up to, not including, `end`, so many at a time. Its sum keeps
 * the work from being optimized away.
 */
function queryOf(
  count: number,
  chunk: number,
  sum: (from: number, end: number) => number,
  answer: (at: number) => number,
): Query {
  let at = 0;
  const turn = () => {
    if (at + chunk > count) at = 0;
    sum(at, at + chunk);
    at += chunk;
    return chunk;
  };
  return { turn, answer };
}

const slowQuery = (count: number, answer: (at: number) => number) => queryOf(count, 1, answer, answer);

/** A loop over the trie alone, for the compiler to see both. */
function trieQuery(trie: PrefixTrie, addresses: readonly Address[]): Query {
  const words = wordsOf(addresses);
  if (addresses[0]?.family === 4) {
    const sum = (from: number, end: number) => {
      let total = 0;
      for (let at = from; at < end; at++) total = (total + trie.lookup4(words[at]!)) | 0;
      return total;
    };
    return queryOf(addresses.length, CHUNK, sum, (at) => trie.lookup4(words[at]!));
  }
  const lookup = (at: number) => trie.lookup6(words[at]!, words[at + 1]!, words[at + 2]!, words[at + 3]!);
  const sum = (from: number, end: number) => {
    let total = 0;
    for (let at = 4 * from; at < 4 * end; at += 4) total = (total + lookup(at)) | 0;
    return total;
  };
  return queryOf(addresses.length, CHUNK, sum, (at) => lookup(4 * at));
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
  return queryOf(addresses.length, CHUNK, sum, answer);
}

const trie: LpmContestant = {
  name: 'sluice trie',
  answers: 'longest',
  sizeMax: Number.POSITIVE_INFINITY,
  slow: false,
  build: (prefixes) => {
    const built = PrefixTrie.build(prefixes);
    return { bytes: built.bytes, query: (addresses) => trieQuery(built, addresses) };
  },
};

const trieBatch: LpmContestant = {
  name: 'sluice trie, in batches',
  answers: 'longest',
  sizeMax: Number.POSITIVE_INFINITY,
  slow: false,
  build: (prefixes) => {
    const built = PrefixTrie.build(prefixes);
    return { bytes: built.bytes, query: (addresses) => batchQuery(built, addresses) };
  },
};

const linear: LpmContestant = {
  name: 'linear table',
  answers: 'longest',
  sizeMax: 1_000_000,
  slow: true,
  build: (prefixes) => {
    const table = LinearTable.build(prefixes);
    return { query: (addresses) => slowQuery(addresses.length, (at) => table.lookup(addresses[at]!)) };
  },
};

/**
 * Linear in Node 20, a radix trie since nodejs/node#64974: what it reaches depends on the version that runs.
 */
const blockList: LpmContestant = {
  name: 'net.BlockList',
  answers: 'any',
  sizeMax: 1_000_000,
  slow: true,
  build: (prefixes) => {
    const list = new BlockList();
    const type = (family: 4 | 6) => (family === 4 ? 'ipv4' : 'ipv6');
    for (const prefix of prefixes) list.addSubnet(printAddress(prefix), prefix.length, type(prefix.family));
    return {
      query: (addresses) => {
        const ready = addresses.map(
          (address) => new SocketAddress({ address: printAddress(address), family: type(address.family) }),
        );
        return slowQuery(ready.length, (at) => Number(list.check(ready[at]!)));
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
  slow: true,
  build: (prefixes) => {
    const ranges = prefixes.map((prefix) => new IPCIDR(printPrefix(prefix)));
    return {
      query: (addresses) => {
        const texts = addresses.map(printAddress);
        return slowQuery(texts.length, (at) => Number(ranges.some((range) => range.contains(texts[at]!))));
      },
    };
  },
};

/** All who take part, ours first; rte_lpm if this machine has it. Only IPv4 has a lookup of ours in batches. */
export function contestantsFor(family: 4 | 6): readonly LpmContestant[] {
  const ours = family === 4 ? [trie, trieBatch] : [trie];
  const rte = canCompile(RTE_LPM) ? rteContestants(family) : [];
  return [...ours, ...rte, linear, blockList, ipCidr];
}
