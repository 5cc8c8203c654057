import assert from 'node:assert/strict';
import fc from 'fast-check';
import t from 'tap';
import { ADDRESS_MAX, BITS, type Family } from '../net/family.js';
import { type Prefix, prefixContains, prefixInterval, prefixOf, printPrefix } from '../net/prefix.js';
import { blockOf, valueOfWords, WORDS } from '../net/words.js';
import { PrefixTree, Runs } from './prefix-tree.js';

const seed = process.env.TEST_SEED === undefined ? Date.now() & 0xffff_ffff : Number(process.env.TEST_SEED);

/** Few bits differ, so that prefixes nest and touch, at the top of the space too. */
const prefixArbitrary = (family: Family) =>
  fc
    .record({
      value: fc.bigInt(0n, ADDRESS_MAX[family]),
      hostBits: fc.oneof(fc.nat(4), fc.nat(BITS[family])),
    })
    .map(({ value, hostBits }) => {
      const few = value & (family === 4 ? 0xe000_800fn : (0xen << 124n) | (1n << 64n) | 0xfn);
      return prefixOf({ family, value: few }, BITS[family] - hostBits);
    });

/** What a walk down to an address makes of tags: which of them, in order. */
const combine = (state: number, tag: number) => state * 7 + tag;

/** One prefix after another, each in turn: a tag for each, by its text. */
class SlowTree {
  readonly tags = new Map<string, { readonly prefix: Prefix; readonly tag: number }>();

  update(prefix: Prefix, tag: number): void {
    if (tag === 0) this.tags.delete(printPrefix(prefix));
    else this.tags.set(printPrefix(prefix), { prefix, tag });
  }

  stateAt(family: Family, value: bigint): number {
    return [...this.tags.values()]
      .filter(({ prefix }) => prefixContains(prefix, { family, value }))
      .sort((a, b) => a.prefix.length - b.prefix.length)
      .reduce((state, { tag }) => combine(state, tag), 1);
  }

  /** Where something may change within a block, from its first address on. */
  starts(within: Prefix): bigint[] {
    const { first, last } = prefixInterval(within);
    const edges = [...this.tags.values()].flatMap(({ prefix }) => {
      const interval = prefixInterval(prefix);
      return [interval.first, interval.last + 1n];
    });
    return [...new Set([first, ...edges])]
      .filter((value) => first <= value && value <= last)
      .sort((a, b) => (a < b ? -1 : 1));
  }

  sweep(within: Prefix): [start: bigint, state: number][] {
    const runs: [bigint, number][] = [];
    for (const start of this.starts(within)) {
      const state = this.stateAt(within.family, start);
      if (runs.at(-1)?.[1] !== state) runs.push([start, state]);
    }
    return runs;
  }
}

function swept(tree: PrefixTree, within: Prefix): [start: bigint, state: number][] {
  const words = WORDS[tree.family];
  const runs = new Runs(words, 1);
  tree.sweep(blockOf(within), 1, combine, runs);
  return Array.from({ length: runs.length }, (_, index) => [
    valueOfWords(runs.starts.subarray(index * words, (index + 1) * words)),
    runs.states[index]!,
  ]);
}

for (const family of [4, 6] as const) {
  const prefix = prefixArbitrary(family);
  const updates = fc.array(fc.tuple(prefix, fc.constantFrom(0, 1, 2, 3), fc.nat(3)), { maxLength: 40 });
  t.test(`a tree of IPv${family} prefixes is as a list of them (TEST_SEED=${seed})`, (t) => {
    fc.assert(
      fc.property(updates, fc.array(prefix, { minLength: 1, maxLength: 6 }), (updates, blocks) => {
        const tree = new PrefixTree(family);
        const slow = new SlowTree();
        const set = (prefix: Prefix, tag: number) => {
          tree.update(blockOf(prefix), (before) => {
            assert.equal(before, slow.tags.get(printPrefix(prefix))?.tag ?? 0, 'told the tag that it had');
            return tag;
          });
          slow.update(prefix, tag);
        };
        const whole = prefixOf({ family, value: 0n }, 0);
        for (const [prefix, tag, again] of updates) {
          // Often one that is there already.
          const there = [...slow.tags.values()];
          set(again > 0 || there.length === 0 ? prefix : there[prefix.length % there.length]!.prefix, tag);
        }
        for (const block of [whole, ...blocks]) assert.deepEqual(swept(tree, block), slow.sweep(block));
        for (const { prefix } of [...slow.tags.values()]) {
          set(prefix, 0);
          assert.deepEqual(swept(tree, prefix), slow.sweep(prefix));
        }
        assert.deepEqual(swept(tree, whole), [[0n, 1]], 'nothing is left');
      }),
      {
        seed,
        numRuns: 400,
        examples: [[[], [prefixOf({ family, value: ADDRESS_MAX[family] }, BITS[family])]]],
      },
    );
    t.pass('in whichever order they come and go');
    t.end();
  });
}

t.test('the place of prefixes that went is taken by others', (t) => {
  const tree = new PrefixTree(6);
  const host = (value: bigint) => blockOf(prefixOf({ family: 6, value }, 128));
  /** Bytes of typed arrays are not of the heap. */
  const bytes = () => {
    globalThis.gc?.();
    return process.memoryUsage().arrayBuffers;
  };
  const fill = (from: bigint, tag: number) => {
    for (let index = 0n; index < 20_000n; index++) tree.update(host(from + index * 3n), () => tag);
  };
  fill(0n, 1);
  const before = bytes();
  for (let round = 1n; round < 30n; round++) {
    fill((round - 1n) << 40n, 0);
    fill(round << 40n, 1);
  }
  const grown = bytes() - before;
  t.ok(
    grown < 1 << 20,
    `${grown} bytes more after 30 times as many prefixes, of which no more are there at once`,
  );
  t.end();
});

t.test('runs join and drop what would be empty', (t) => {
  const runs = new Runs(1, 1);
  const push = (start: number, state: number) => runs.push(Uint32Array.of(start), state);
  const list = () =>
    Array.from({ length: runs.length }, (_, index) => [runs.starts[index], runs.states[index]]);
  push(0, 1);
  push(5, 1);
  push(6, 2);
  push(6, 3);
  t.strictSame(list(), [
    [0, 1],
    [6, 3],
  ]);
  push(6, 1);
  t.strictSame(list(), [[0, 1]], 'as the one before');
  for (let index = 1; index < 10; index++) push(index * 10, index % 2);
  runs.endAt(Uint32Array.of(49));
  t.strictSame(list().at(-1), [40, 0]);
  t.end();
});
