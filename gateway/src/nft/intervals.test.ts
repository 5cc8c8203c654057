import assert from 'node:assert/strict';
import fc from 'fast-check';
import t from 'tap';
import { ADDRESS_MAX, BITS, type Family } from '../net/family.js';
import { blockOf, lastOf, valueOfWords, wordsOf } from '../net/words.js';
import { Batch } from './batch.js';
import { Intervals } from './intervals.js';
import type { IntervalMap, MapElement, NumberMap } from './program.js';

const seed = process.env.TEST_SEED === undefined ? Date.now() & 0xffff_ffff : Number(process.env.TEST_SEED);

/** A block: the whole space, one that ends with it, one that does not. */
interface Around {
  readonly family: Family;
  readonly value: bigint;
  readonly length: number;
}

const around: fc.Arbitrary<Around> = fc
  .record({ family: fc.constantFrom<Family>(4, 6), length: fc.nat(28), ones: fc.boolean() })
  .map(({ family, length, ones }) => {
    const host = BigInt(BITS[family] - length);
    return { family, length, value: ones ? (ADDRESS_MAX[family] >> host) << host : 0n };
  });

/** Starts within a block and their numbers, as elements: no hole, up to the block's end. */
function elementsIn({ family, value, length }: Around, cuts: readonly (readonly [bigint, number])[]) {
  const last = valueOfWords(lastOf(blockOf({ family, value, length })));
  const data = new Map([
    [value, 0],
    ...cuts.map(([offset, data]) => [value + (offset % (last - value + 1n)), data] as const),
  ]);
  const firsts = [...data.keys()].sort((a, b) => (a < b ? -1 : 1));
  return firsts.map((first, index): MapElement<number> => {
    return { first, last: (firsts[index + 1] ?? last + 1n) - 1n, data: data.get(first)! };
  });
}

function packed({ family }: Around, elements: readonly MapElement<number>[]): Intervals {
  const starts = elements.flatMap(({ first }) => [...wordsOf({ family, value: first })]);
  const last = wordsOf({ family, value: elements.at(-1)!.last });
  return new Intervals(
    Uint32Array.from(starts),
    Uint32Array.from(elements, ({ data }) => data),
    last,
  );
}

/** Few offsets and few numbers, so that much stays the same from one to the next; far ones too. */
const cuts = fc.array(
  fc.tuple(fc.oneof(fc.bigInt(0n, 12n), fc.bigInt(0n, ADDRESS_MAX[6])), fc.integer({ min: 1, max: 3 })),
  { maxLength: 12 },
);
const key = ({ first, last, data }: MapElement<number>) => `${first} ${last} ${data}`;

t.test(`intervals are elements, packed (TEST_SEED=${seed})`, (t) => {
  fc.assert(
    fc.property(around, cuts, (around, cuts) => {
      const elements = elementsIn(around, cuts);
      const intervals = packed(around, elements);
      assert.equal(intervals.length, elements.length);
      assert.deepEqual([...intervals], elements);
      assert.deepEqual(intervals.at(elements.length - 1), elements.at(-1));
    }),
    { seed, numRuns: 500 },
  );
  t.pass('the same');
  t.end();
});

t.test(`changes make one into the other, and touch nothing that stays (TEST_SEED=${seed})`, (t) => {
  fc.assert(
    fc.property(around, cuts, cuts, cuts, (around, kept, before, after) => {
      const [old, now] = [elementsIn(around, [...kept, ...before]), elementsIn(around, [...kept, ...after])];
      const { remove, add } = packed(around, old).changesTo(packed(around, now));
      const left = new Map(old.map((element) => [key(element), element]));
      for (const element of remove) assert.ok(left.delete(key(element)), 'what is removed was there');
      for (const element of add) {
        assert.ok(![...left.values()].some((one) => one.first <= element.last && element.first <= one.last));
        left.set(key(element), element);
      }
      assert.deepEqual([...left.keys()].sort(), now.map(key).sort());
      const [removed, added] = [new Set(remove.map(key)), new Set(add.map(key))];
      assert.equal(removed.intersection(added).size, 0, 'what stays is not touched');
    }),
    { seed, numRuns: 1_000 },
  );
  t.pass('from any to any over one block');
  t.end();
});

t.test(`packed elements are the same bytes as one after the other (TEST_SEED=${seed})`, (t) => {
  const shapes = new Set<string>();
  const written = (map: IntervalMap | NumberMap) => {
    const batch = new Batch();
    const nexts: number[] = [];
    for (let next = 0; next < map.elements.length; nexts.push(next)) next = batch.addElements(map, next);
    return { bytes: Buffer.from(batch.finish().bytes).toString('hex'), nexts };
  };
  const many = fc
    .integer({ min: 2, max: 2_000 })
    .map((count) =>
      Array.from({ length: count }, (_, index) => [BigInt(index) * 3n, (index * 0x9e37_79b1) >>> 0] as const),
    );
  fc.assert(
    fc.property(around, fc.oneof(cuts, many), (around, cuts) => {
      const elements = elementsIn(around, cuts);
      const { family } = around;
      const shape = { name: 'm', key: `ipv${family}_addr`, data: 'mark', interval: true } as const;
      const fast = written({ ...shape, elements: packed(around, elements) });
      const slow = written({ ...shape, elements });
      assert.deepEqual(fast, slow);
      const isTop = elements.at(-1)!.last === ADDRESS_MAX[family];
      shapes.add(`IPv${family} ${isTop ? 'to the top' : 'below it'}${fast.nexts.length > 1 ? ' split' : ''}`);
    }),
    { seed, numRuns: 300 },
  );
  t.strictSame(
    [...shapes].sort(),
    [4, 6].flatMap((family) =>
      ['below it', 'below it split', 'to the top', 'to the top split'].map((end) => `IPv${family} ${end}`),
    ),
    'all shapes were tried',
  );
  t.end();
});
