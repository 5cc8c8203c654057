import fc from 'fast-check';
import IPCIDR from 'ip-cidr';
import t, { type Test } from 'tap';
import { type Address, parseAddress, printAddress } from '../net/address.js';
import { ADDRESS_MAX, BITS, FAMILIES, type Family } from '../net/family.js';
import { type Prefix, parsePrefix, prefixInterval, prefixOf, printPrefix } from '../net/prefix.js';
import { LinearTable } from './linear.js';
import { distinctPrefixes } from './sorted.js';
import type { PrefixTable } from './table.js';
import { PrefixTrie } from './trie.js';

const seed = Number(process.env.TEST_SEED ?? Date.now() % 2 ** 31);
t.comment(`TEST_SEED=${seed}`);

const prefixes = (...texts: string[]) => texts.map(parsePrefix);

/** An address anywhere, but mostly where carries, words, root entries and the ends of the space are. */
const anyValue = (family: Family) => {
  const max = ADDRESS_MAX[family];
  const bit = fc.integer({ min: 0, max: BITS[family] - 1 }).map((shift) => 1n << BigInt(shift));
  const edge = fc
    .tuple(bit, fc.bigInt(-2n, 2n))
    .map(([power, off]) => BigInt.asUintN(BITS[family], power + off));
  const clustered = fc.tuple(fc.constantFrom(0n, max >> 3n, max - (max >> 5n)), fc.bigInt(0n, 0xfffffn), bit);
  return fc.oneof(
    edge,
    fc.bigInt(0n, max),
    fc.constantFrom(0n, max),
    clustered.map(([base, low, flip]) => BigInt.asUintN(BITS[family], base ^ low ^ flip)),
  );
};

const anyPrefix = fc
  .constantFrom(...FAMILIES)
  .chain((family) =>
    fc
      .tuple(anyValue(family), fc.integer({ min: 0, max: BITS[family] }))
      .map(([value, length]) => prefixOf({ family, value }, length)),
  );
const anyAddress: fc.Arbitrary<Address> = fc
  .constantFrom(...FAMILIES)
  .chain((family) => anyValue(family).map((value) => ({ family, value })));

/** Prefixes around one address: chains as deep as the address is wide. */
const anyChain = fc
  .constantFrom(...FAMILIES)
  .chain((family) =>
    fc
      .tuple(anyValue(family), fc.array(fc.integer({ min: 0, max: BITS[family] }), { maxLength: 40 }))
      .map(([value, lengths]) => lengths.map((length) => prefixOf({ family, value }, length))),
  );
const anyPrefixes = fc
  .tuple(fc.array(anyPrefix, { maxLength: 120, size: 'max' }), fc.array(anyChain, { maxLength: 3 }))
  .map(([alone, chains]) => [...distinctPrefixes([...alone, ...chains.flat()]).prefixes])
  .chain((unique) => fc.shuffledSubarray(unique, { minLength: unique.length }));

/** Where an answer can change: the ends of a prefix and what lies just outside. */
function boundaries(prefix: Prefix): Address[] {
  const { family, first, last } = prefixInterval(prefix);
  return [first - 1n, first, last, last + 1n]
    .filter((value) => value >= 0n && value <= ADDRESS_MAX[family])
    .map((value) => ({ family, value }));
}

function lookupByWords(table: PrefixTable, { family, value }: Address): number {
  if (family === 4) return table.lookup4(Number(value));
  const [w0, w1, w2, w3] = [96n, 64n, 32n, 0n].map((shift) => Number((value >> shift) & 0xffffffffn));
  return table.lookup6(w0!, w1!, w2!, w3!);
}

function contract(t: Test, build: (list: readonly Prefix[]) => PrefixTable): void {
  const find = (list: readonly Prefix[], text: string) => {
    const table = build(list);
    const address = parseAddress(text);
    const index = table.lookup(address);
    t.equal(lookupByWords(table, address), index, `${text} by words`);
    return index < 0 ? 'none' : printPrefix(list[index]!);
  };

  t.test('empty', async (t) => {
    const table = build([]);
    t.equal(table.size, 0);
    for (const text of ['0.0.0.0', '255.255.255.255', '::', 'ffff::']) t.equal(find([], text), 'none');
    t.throws(() => table.parent(0), { message: /index 0 is not/ });
  });

  t.test('the longest prefix wins, in any order of the list', async (t) => {
    const nested = prefixes(
      '10.0.0.0/8',
      '10.1.0.0/16',
      '10.1.2.0/24',
      '10.1.2.3/32',
      '2600::/16',
      '2600:1::/32',
    );
    for (const list of [nested, nested.toReversed()]) {
      t.equal(find(list, '10.1.2.3'), '10.1.2.3/32');
      t.equal(find(list, '10.1.2.2'), '10.1.2.0/24');
      t.equal(find(list, '10.1.3.0'), '10.1.0.0/16');
      t.equal(find(list, '10.255.255.255'), '10.0.0.0/8');
      t.equal(find(list, '11.0.0.0'), 'none');
      t.equal(find(list, '9.255.255.255'), 'none');
      t.equal(find(list, '2600:1:ffff::'), '2600:1::/32');
      t.equal(find(list, '2600:2::'), '2600::/16');
      t.equal(find(list, '2601::'), 'none');
    }
  });

  t.test('both ends of the address space', async (t) => {
    const ends = prefixes(
      '0.0.0.0/32',
      '255.255.255.255/32',
      '255.255.255.254/31',
      '::/128',
      '::/0',
      '0.0.0.0/0',
    );
    const max6 = 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff';
    t.equal(find(ends, '0.0.0.0'), '0.0.0.0/32');
    t.equal(find(ends, '0.0.0.1'), '0.0.0.0/0');
    t.equal(find(ends, '255.255.255.253'), '0.0.0.0/0');
    t.equal(find(ends, '255.255.255.254'), '255.255.255.254/31');
    t.equal(find(ends, '255.255.255.255'), '255.255.255.255/32');
    t.equal(find(ends, '::'), '::/128');
    t.equal(find(ends, '::1'), '::/0');
    t.equal(find(ends, max6), '::/0');
    t.equal(find(prefixes('255.255.255.254/32'), '255.255.255.255'), 'none');
    t.equal(find(prefixes(`${max6}/128`), max6), `${max6}/128`);
    t.equal(find(prefixes(`${max6}/128`), 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe'), 'none');
  });

  t.test('families do not mix', async (t) => {
    t.equal(find(prefixes('0.0.0.0/0'), '::1'), 'none');
    t.equal(find(prefixes('::/0'), '1.2.3.4'), 'none');
    t.equal(find(prefixes('::/96', '10.0.0.0/8'), '::10.0.0.1'), '::/96');
  });

  t.test('parents', async (t) => {
    const list = prefixes(
      '10.1.2.0/24',
      '::/0',
      '10.0.0.0/8',
      '10.1.0.0/16',
      '10.1.3.0/24',
      '2600::/16',
      '11.0.0.0/8',
    );
    const table = build(list);
    t.equal(table.size, list.length);
    t.same(
      [...list.keys()].map((index) => table.parent(index)),
      [3, -1, -1, 2, 3, 1, -1],
    );
    t.throws(() => table.parent(-1), { message: /^Cannot look up parent: index -1 is not from 0 to 6$/ });
    t.throws(() => table.parent(7), { message: /index 7/ });
  });

  t.test('chains as deep as the address is wide', async (t) => {
    for (const family of FAMILIES) {
      for (const value of [0n, ADDRESS_MAX[family]]) {
        const chain = Array.from({ length: BITS[family] + 1 }, (_, length) =>
          prefixOf({ family, value }, length),
        );
        const table = build(chain);
        for (let bit = 0; bit < BITS[family]; bit++) {
          const address = { family, value: value ^ (1n << BigInt(BITS[family] - 1 - bit)) };
          t.equal(table.lookup(address), bit, printAddress(address));
          t.equal(table.parent(bit + 1), bit);
        }
        t.equal(table.lookup({ family, value }), BITS[family]);
      }
    }
  });

  t.test('refuses a prefix that stands twice', async (t) => {
    const message = 'Cannot build prefix table: 10.0.0.0/8 stands at 1 and at 3, prefixes must be unique';
    t.throws(
      () => build(prefixes('::/0', '10.0.0.0/8', '10.0.0.0/9', '10.0.0.0/8')),
      new RangeError(message),
    );
    t.throws(() => build(prefixes('::/0', '0.0.0.0/0', '::/0')), { message: /::\/0 stands at 0 and at 2/ });
  });
  t.end();
}

t.test('linear table: contract', (t) => contract(t, LinearTable.build));
t.test('trie: contract', (t) => contract(t, PrefixTrie.build));

t.test('linear table agrees with ip-cidr', async (t) => {
  // Fair inputs for this judge: canonical prefixes, and no IPv4-mapped IPv6, which it refuses.
  fc.assert(
    fc.property(
      fc.uniqueArray(anyPrefix, { selector: printPrefix, maxLength: 8 }),
      fc.array(anyAddress),
      (list, more) => {
        const table = LinearTable.build(list);
        const judges = list.map((prefix) => ({ prefix, range: new IPCIDR(printPrefix(prefix)) }));
        for (const address of [...list.flatMap(boundaries), ...more]) {
          const holding = judges.filter(
            ({ prefix, range }) => prefix.family === address.family && range.contains(printAddress(address)),
          );
          const longest = Math.max(-1, ...holding.map(({ prefix }) => prefix.length));
          const index = table.lookup(address);
          const found = index < 0 ? -1 : list[index]!.length;
          if (found !== longest)
            throw new Error(`${printAddress(address)}: /${found}, ip-cidr says /${longest}`);
        }
      },
    ),
    { seed, numRuns: 60 },
  );
  t.pass('60 runs');
});

t.test('trie agrees with the linear table', async (t) => {
  fc.assert(
    fc.property(anyPrefixes, fc.array(anyAddress), (list, more) => {
      const [trie, linear] = [PrefixTrie.build(list), LinearTable.build(list)];
      const addresses = [...list.flatMap(boundaries), ...more];
      const expected = addresses.map((address) => linear.lookup(address));
      for (const [index, address] of addresses.entries()) {
        const found = [trie.lookup(address), lookupByWords(trie, address)];
        if (found.some((one) => one !== expected[index])) {
          throw new Error(`${printAddress(address)}: trie ${found}, linear ${expected[index]}`);
        }
      }
      const words = Uint32Array.from(addresses, ({ family, value }) => (family === 4 ? Number(value) : 0));
      const many = new Int32Array(words.length);
      trie.lookupMany4(words, many);
      for (const [index, word] of words.entries()) {
        if (many[index] !== trie.lookup4(word)) throw new Error(`lookupMany4 of ${word}: ${many[index]}`);
      }
      for (const index of list.keys()) {
        if (trie.parent(index) !== linear.parent(index))
          throw new Error(`parent of ${printPrefix(list[index]!)}`);
      }
    }),
    { seed, numRuns: 300 },
  );
  t.pass('300 runs');
});

/** Many prefixes close together and far apart, enough for wide roots and several levels of nodes. */
function manyPrefixes(family: Family, count: number): readonly Prefix[] {
  const near = fc
    .tuple(fc.integer({ min: 0, max: 200 }), fc.bigInt(0n, ADDRESS_MAX[family]))
    .map(([place, low]) => {
      const bits = BigInt(BITS[family]);
      return ((BigInt(place) * 0x9e3779b1n) << (bits - 32n)) ^ (low >> (bits / 2n));
    });
  const value = fc.oneof(near, fc.bigInt(0n, ADDRESS_MAX[family]));
  const prefix = fc
    .tuple(value, fc.integer({ min: BITS[family] / 4, max: BITS[family] }))
    .map(([bits, length]) => prefixOf({ family, value: BigInt.asUintN(BITS[family], bits) }, length));
  return distinctPrefixes(fc.sample(prefix, { seed, numRuns: count })).prefixes;
}

t.test('a large trie agrees with a map of prefixes by length, and stays within its memory', async (t) => {
  const list = FAMILIES.flatMap((family) => manyPrefixes(family, family === 4 ? 150_000 : 50_000));
  const trie = PrefixTrie.build(list);
  const indexes = new Map(list.map((prefix, index) => [printPrefix(prefix), index]));
  const longest = (address: Address) => {
    for (let length = BITS[address.family]; length >= 0; length--) {
      const index = indexes.get(printPrefix(prefixOf(address, length)));
      if (index !== undefined) return index;
    }
    return -1;
  };
  const picked = fc.sample(fc.integer({ min: 0, max: list.length - 1 }), { seed, numRuns: 3000 });
  const addresses = [
    ...picked.flatMap((index) => boundaries(list[index]!)),
    ...fc.sample(anyAddress, { seed, numRuns: 2000 }),
  ];
  for (const address of addresses) {
    const expected = longest(address);
    if (trie.lookup(address) !== expected) t.equal(trie.lookup(address), expected, printAddress(address));
  }

  const shuffled = fc.sample(fc.shuffledSubarray([...list], { minLength: list.length }), {
    seed,
    numRuns: 1,
  })[0]!;
  const unsorted = PrefixTrie.build(shuffled);
  for (const address of addresses) {
    const index = unsorted.lookup(address);
    const found = index < 0 ? -1 : indexes.get(printPrefix(shuffled[index]!));
    if (found !== trie.lookup(address)) t.equal(found, trie.lookup(address), printAddress(address));
  }

  const list4 = list.filter(({ family }) => family === 4);
  const perPrefix = PrefixTrie.build(list4).bytes / list4.length;
  t.ok(perPrefix <= 24, `${perPrefix} bytes an IPv4 prefix`);
  t.ok(trie.bytes / list.length <= 26, `${trie.bytes / list.length} bytes a prefix`);
});

t.test('distinctPrefixes sorts, merges and tells where each went', async (t) => {
  const list = prefixes('::/0', '10.0.0.0/8', '::/0', '9.0.0.0/8', '10.0.0.0/8', '10.0.0.0/9');
  const distinct = distinctPrefixes(list);
  t.same(distinct.prefixes.map(printPrefix), ['9.0.0.0/8', '10.0.0.0/8', '10.0.0.0/9', '::/0']);
  t.same([...distinct.ids], [3, 1, 3, 0, 1, 2]);
});
