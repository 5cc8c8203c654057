import assert from 'node:assert/strict';
import fc from 'fast-check';
import t from 'tap';
import { ADDRESS_MAX, BITS, FAMILIES, type Family } from '../net/family.js';
import { comparePrefixes, type Prefix, prefixContains, prefixOf } from '../net/prefix.js';
import { blockOf, lastOf, valueOfWords, WORDS } from '../net/words.js';
import { touchedBlocks } from './members.js';
import {
  OWN_ADDRESSES,
  SHARD_GROWN_INTERVALS_MAX,
  SHARD_INTERVALS_MAX,
  type Shard,
  type ShardChange,
  Side,
} from './side.js';

const seed = process.env.TEST_SEED === undefined ? Date.now() & 0xffff_ffff : Number(process.env.TEST_SEED);

const startsOf = ({ family, starts }: Shard): bigint[] => {
  const words = WORDS[family];
  return Array.from({ length: starts.length / words }, (_, index) =>
    valueOfWords(starts.subarray(index * words, (index + 1) * words)),
  );
};

/** The stretches of a family, whatever the shards: neighbours of one atom are one. */
function stretches(side: Side, family: Family): [start: bigint, groups: string][] {
  const found: [bigint, string][] = [];
  for (const shard of side.shards.filter((shard) => shard.family === family)) {
    for (const [index, start] of startsOf(shard).entries()) {
      const groups = side.atoms.membersOf(shard.atoms[index]!).join();
      if (found.at(-1)?.[1] !== groups) found.push([start, groups]);
    }
  }
  return found;
}

function checkShards(side: Side, intervalsMax = SHARD_INTERVALS_MAX): void {
  const live = new Set<number>();
  for (const family of FAMILIES) {
    let next = 0n;
    for (const shard of side.shards.filter((shard) => shard.family === family)) {
      const first = valueOfWords(shard.block.words);
      assert.equal(first, next, 'no hole between shards, and no overlap');
      const last = valueOfWords(lastOf(shard.block));
      assert.equal(valueOfWords(shard.last), last);
      const starts = startsOf(shard);
      assert.equal(starts[0], first, 'from its first address on');
      assert.ok(starts.every((start, index) => index === 0 || starts[index - 1]! < start));
      assert.ok(starts.at(-1)! <= last);
      assert.equal(starts.length, shard.atoms.length);
      assert.ok(starts.length <= intervalsMax, `${starts.length} stretches`);
      for (const atom of shard.atoms) live.add(atom);
      next = last + 1n;
    }
    assert.equal(next, ADDRESS_MAX[family] + 1n, 'up to the top');
  }
  assert.deepEqual(
    side.liveAtoms(),
    [...live].sort((a, b) => a - b),
    'atoms that some address is in',
  );
}

/** Many prefixes in few blocks, so that shards are cut; wide ones that hold several, and the top of the space. */
const prefix = fc
  .record({
    family: fc.constantFrom<Family>(4, 6),
    value: fc.bigInt(0n, ADDRESS_MAX[6]),
    hostBits: fc.oneof(fc.nat(2), fc.nat(128)),
  })
  .map(({ family, value, hostBits }) => {
    const few = value & (family === 4 ? 0xc000_3fffn : (3n << 126n) | 0x3fffn);
    return prefixOf({ family, value: few }, BITS[family] - (hostBits % (BITS[family] + 1)));
  });
/** Hosts, each apart from the next, in one block of a family. */
const hosts = fc
  .record({
    family: fc.constantFrom<Family>(4, 6),
    from: fc.nat(3),
    count: fc.integer({ min: 1_000, max: 3_000 }),
  })
  .map(({ family, from, count }) =>
    Array.from({ length: count }, (_, index) => {
      const value = (BigInt(from) << BigInt(BITS[family] - 2)) | BigInt(2 * index);
      return prefixOf({ family, value }, BITS[family]);
    }),
  );
const step = fc.record({
  group: fc.constantFrom(OWN_ADDRESSES, 1, 2, 3, 4),
  add: fc.oneof(
    { weight: 3, arbitrary: fc.array(prefix, { maxLength: 4 }) },
    { weight: 1, arbitrary: hosts },
  ),
  /** Drops what it has, of each so many. */
  dropEach: fc.constantFrom(0, 0, 1, 2, 7),
});

const keyOf = ({ family, block }: Shard) => `${family} ${block.words.join()}/${block.length}`;

function checkChange(
  before: readonly Shard[],
  after: readonly Shard[],
  changes: readonly ShardChange[],
  touched: readonly Prefix[],
): void {
  const gone = new Set(changes.map((change) => change.before));
  const come = new Set(changes.flatMap((change) => change.after));
  assert.deepEqual(new Set(before).difference(new Set(after)), gone, 'what is told is what is other');
  assert.deepEqual(new Set(after).difference(new Set(before)), come);
  for (const { before, after } of changes) {
    const first = valueOfWords(before.block.words);
    const last = valueOfWords(before.last);
    assert.ok(
      touched.some(
        (prefix) =>
          prefix.family === before.family &&
          (prefixContains(prefix, { family: prefix.family, value: first }) ||
            (first <= prefix.value && prefix.value <= last)),
      ),
      `${keyOf(before)} was touched`,
    );
    assert.ok(after.length > 0);
  }
}

t.test(`a side cut anew where it changed is as one cut anew wholly (TEST_SEED=${seed})`, (t) => {
  let most = 0;
  fc.assert(
    fc.property(fc.array(step, { minLength: 1, maxLength: 8 }), (steps) => {
      const side = new Side();
      side.sweepAll();
      const held = new Map<number, readonly Prefix[]>();
      for (const { group, add, dropEach } of steps) {
        const kept = (held.get(group) ?? []).filter((_, index) => dropEach === 0 || index % dropEach !== 0);
        const now = [...kept, ...add].sort(comparePrefixes);
        const distinct = now.filter(
          (one, index) => index === 0 || comparePrefixes(now[index - 1]!, one) !== 0,
        );
        held.set(group, distinct);
        const change = side.members.set(group, [distinct]);
        const before = side.shards;
        const blocks = touchedBlocks([change]);
        const changes = FAMILIES.flatMap((family) => side.sweepBlocks(family, blocks[family]));
        checkChange(before, side.shards, changes, [...change.added, ...change.removed]);
        checkShards(side, SHARD_GROWN_INTERVALS_MAX);
        const fresh = new Side();
        for (const [of, prefixes] of held) fresh.members.set(of, [prefixes]);
        fresh.sweepAll();
        checkShards(fresh);
        for (const family of FAMILIES) assert.deepEqual(stretches(side, family), stretches(fresh, family));
        most = Math.max(most, side.shards.length);
        if (dropEach === 7) {
          const kept = new Set(side.shards.map(keyOf));
          const shards = new Set(side.shards);
          side.sweepAll();
          checkShards(side);
          for (const shard of fresh.shards) {
            if (kept.has(keyOf(shard)))
              assert.ok(
                side.shards.some((one) => keyOf(one) === keyOf(shard) && shards.has(one)),
                'kept',
              );
          }
        }
      }
    }),
    { seed, numRuns: 60 },
  );
  t.ok(most > 4, `up to ${most} shards`);
  t.end();
});

t.test(`each address has the groups whose prefixes hold it (TEST_SEED=${seed})`, (t) => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.constantFrom(OWN_ADDRESSES, 1, 2, 3, 4), prefix), { maxLength: 20 }),
      (pairs) => {
        const side = new Side();
        for (const group of [OWN_ADDRESSES, 1, 2, 3, 4]) {
          const of = pairs
            .filter(([of]) => of === group)
            .map(([, prefix]) => prefix)
            .sort(comparePrefixes);
          side.members.set(group, [
            of.filter((one, index) => index === 0 || comparePrefixes(of[index - 1]!, one) !== 0),
          ]);
        }
        side.sweepAll();
        for (const family of FAMILIES) {
          for (const [start, groups] of stretches(side, family)) {
            const holding = new Set(
              pairs
                .filter(([, prefix]) => prefixContains(prefix, { family, value: start }))
                .map(([group]) => group),
            );
            const expected = holding.has(OWN_ADDRESSES)
              ? [OWN_ADDRESSES]
              : [...holding].sort((a, b) => a - b);
            assert.equal(groups, expected.join());
          }
          const edges = pairs
            .filter(([, prefix]) => prefix.family === family)
            .flatMap(([, { value, length }]) => [value, value + (1n << BigInt(BITS[family] - length))]);
          const starts = new Set(stretches(side, family).map(([start]) => start));
          assert.ok(
            [...starts].every((start) => start === 0n || edges.includes(start)),
            'none without a cause',
          );
        }
      },
    ),
    { seed, numRuns: 500 },
  );
  t.pass('the gateway itself is in none');
  t.end();
});

t.test('a block with more stretches than a shard may have is cut in two, and again', (t) => {
  const side = new Side();
  side.sweepAll();
  t.equal(side.shards.length, 2, 'one a family while there is nothing');
  const many = Array.from({ length: 3_000 }, (_, index) =>
    prefixOf({ family: 4, value: 0x0a00_0000n + BigInt(2 * index) }, 32),
  );
  const change = side.members.set(1, [many]);
  const [cut, ...more] = side.sweepBlocks(4, touchedBlocks([change])[4]);
  t.strictSame([more.length, cut!.before.block.length], [0, 0]);
  t.ok(cut!.after.length >= 4, `${cut!.after.length} shards`);
  checkShards(side);
  const one = side.members.set(2, [[prefixOf({ family: 4, value: 0x0a00_0001n }, 32)]]);
  const changes = side.sweepBlocks(4, one.added.map(blockOf));
  t.strictSame(
    changes.map(({ before }) => before.block.length > 8),
    [true],
    'one host, one shard',
  );
  t.strictSame(side.sweepBlocks(4, one.added.map(blockOf)), [], 'nothing new');
  t.end();
});
