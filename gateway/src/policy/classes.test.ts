import assert from 'node:assert/strict';
import fc from 'fast-check';
import t from 'tap';
import { parseAddress } from '../net/address.js';
import { ADDRESS_MAX, BITS, FAMILIES, type Family } from '../net/family.js';
import { type Prefix, prefixContains, prefixInterval, prefixOf } from '../net/prefix.js';
import { commonBits, emptyBits, setBit } from './bits.js';
import { CLASSIFY_LIMITS, type Classification, classify, PolicyTooLargeError } from './classify.js';
import type { GroupPrefixes } from './evaluate.js';
import { inForce, prefixes, rule } from './fixture.js';
import type { PolicyRule } from './model.js';
import { type ClassInterval, partition } from './partition.js';

const seed = process.env.TEST_SEED === undefined ? Date.now() & 0xffff_ffff : Number(process.env.TEST_SEED);
const at = (intervals: readonly ClassInterval[], value: bigint) =>
  intervals.find(({ first, last }) => first <= value && value <= last)!;

t.test('a partition covers everything once', (t) => {
  const none = partition([], [], 0);
  t.equal(none.classes.length, 1, 'with no groups there is one class');
  for (const family of FAMILIES) {
    t.strictSame(none.intervals[family], [{ first: 0n, last: ADDRESS_MAX[family], classIndex: 0 }]);
  }
  const group = (ruleIndexes: number[], ...texts: string[]) => ({
    prefixes: prefixes(...texts),
    ruleIndexes,
  });
  const { classes, intervals } = partition(
    [
      group([0], '10.0.0.0/8', '255.255.255.255/32', '::/0'),
      group([1], '10.1.0.0/16'),
      group([0, 1], '10.1.0.0/17', '11.0.0.0/8'),
    ],
    prefixes('10.1.0.1/32'),
    2,
  );
  const rulesAt = (family: Family, text: string) => {
    const everyRule = Uint32Array.of(0xffff_ffff);
    return [...commonBits(classes[at(intervals[family], parseAddress(text).value).classIndex]!, everyRule)];
  };
  t.strictSame(rulesAt(4, '9.255.255.255'), []);
  t.strictSame(rulesAt(4, '10.0.0.0'), [0]);
  t.strictSame(rulesAt(4, '10.1.0.0'), [0, 1]);
  t.strictSame(rulesAt(4, '10.1.0.1'), [], 'excluded');
  t.strictSame(rulesAt(4, '10.1.0.2'), [0, 1]);
  t.strictSame(rulesAt(4, '10.1.128.0'), [0, 1], 'one group has left, the other still brings the rule');
  t.strictSame(rulesAt(4, '10.2.0.0'), [0]);
  t.strictSame(rulesAt(4, '11.0.0.0'), [0, 1]);
  t.strictSame(rulesAt(4, '255.255.255.254'), []);
  t.strictSame(rulesAt(4, '255.255.255.255'), [0], 'at the top of the address space');
  t.strictSame(rulesAt(6, '::'), [0]);
  t.equal(classes.length, 3);
  t.equal(intervals[6].length, 1);
  t.end();
});

const groupNames = ['a', 'b', 'c', 'd'];
const prefixArbitrary = fc
  .record({
    family: fc.constantFrom<Family>(4, 6),
    value: fc.bigInt(0n, ADDRESS_MAX[6]),
    length: fc.nat(128),
  })
  .map(({ family, value, length }) => {
    // Few bits differ, so that prefixes nest and touch.
    const top = value & (family === 4 ? 0xe000_0007n : (0xen << 124n) | 7n);
    return prefixOf({ family, value: top }, length % (BITS[family] + 1));
  });
const groupsArbitrary = fc
  .tuple(...groupNames.map(() => fc.array(prefixArbitrary, { maxLength: 5 })))
  .map((members) => new Map(groupNames.map((name, index) => [name, members[index]!])));
const rulesArbitrary = fc.array(
  fc
    .record({
      src: fc.uniqueArray(fc.constantFrom(...groupNames), { minLength: 1, maxLength: 3 }),
      dst: fc.uniqueArray(fc.constantFrom(...groupNames), { minLength: 1, maxLength: 3 }),
      enforcement: fc.constantFrom('ENFORCE' as const, 'MONITOR' as const),
      protocol: fc.constantFrom('ANY' as const, 'TCP' as const, 'ICMP' as const),
    })
    .map((drawn) => rule('', '', '', drawn)),
  { maxLength: 8 },
);

/** An address at or beside each boundary of the groups. */
function edges(groups: GroupPrefixes, excluded: readonly Prefix[], family: Family): bigint[] {
  const boundaries = [...groups.values(), excluded].flat().flatMap((prefix) => {
    const { first, last } = prefixInterval(prefix);
    return prefix.family === family ? [first - 1n, first, last, last + 1n] : [];
  });
  return [0n, ...boundaries].filter((value) => value >= 0n && value <= ADDRESS_MAX[family]);
}

t.test(`classes say of each address which rules match it (TEST_SEED=${seed})`, (t) => {
  fc.assert(
    fc.property(
      rulesArbitrary,
      groupsArbitrary,
      fc.array(prefixArbitrary, { maxLength: 2 }),
      (rules, groups, excluded) => {
        const policy = inForce(...rules);
        const classes = classify(policy, groups, excluded);
        for (const family of FAMILIES) {
          for (const intervals of [classes.sources[family], classes.destinations[family]]) {
            let next = 0n;
            for (const [index, { first, last, classIndex }] of intervals.entries()) {
              assert.equal(first, next, 'no hole and no overlap');
              assert.notEqual(intervals[index + 1]?.classIndex, classIndex, 'neighbours differ');
              next = last + 1n;
            }
            assert.equal(next, ADDRESS_MAX[family] + 1n, 'up to the top');
          }
          const isMember = (names: readonly string[], value: bigint) =>
            !excluded.some((prefix) => prefixContains(prefix, { family, value })) &&
            names.some((name) =>
              groups.get(name)!.some((prefix) => prefixContains(prefix, { family, value })),
            );
          const values = edges(groups, excluded, family);
          for (const source of values) {
            const row = classes.listOf[at(classes.sources[family], source).classIndex]!;
            for (const destination of values.slice(0, 6)) {
              const list = classes.lists[row[at(classes.destinations[family], destination).classIndex]!]!;
              const expected = policy.rules.filter(
                ({ rule }) => isMember(rule.src, source) && isMember(rule.dst, destination),
              );
              const end = expected.findIndex(({ enforced, rule }) => enforced && rule.protocol === 'ANY');
              assert.deepEqual(
                list.map(({ number }) => number),
                (end < 0 ? expected : expected.slice(0, end + 1)).map(({ number }) => number),
              );
            }
          }
        }
        const rows = classes.listOf.map((row) => row.join());
        assert.equal(new Set(rows).size, rows.length, 'no two rows are equal');
        const columns = (classes.listOf[0] ?? []).map((_, column) =>
          classes.listOf.map((row) => row[column]).join(),
        );
        assert.equal(new Set(columns).size, columns.length, 'no two columns are equal');
      },
    ),
    { seed, numRuns: 300 },
  );
  t.pass('as group by group');
  t.end();
});

t.test('rows and columns that are equal are one class', (t) => {
  const groups = new Map([
    ['a', prefixes('10.0.0.0/24')],
    ['b', prefixes('10.0.2.0/24')],
    ['left', prefixes('20.0.0.0/24')],
    ['right', prefixes('20.0.1.0/24')],
    ['empty', []],
  ]);
  const shape = ({ listOf, lists }: Classification) => [listOf.length, listOf[0]?.length, lists.length];
  const of = (...rules: PolicyRule[]) => classify(inForce(...rules), groups, []);
  t.strictSame(shape(of()), [1, 1, 1]);
  t.strictSame(shape(of(rule('1', 'empty', 'left'), rule('2', 'a', 'unknown'))), [1, 1, 1], 'nobody matches');
  const same = of(rule('1', 'a', 'left'), rule('2', 'b', 'left'));
  t.strictSame(shape(same), [3, 2, 3], 'different rules decide');
  const shadowed = of(
    rule('1', 'a', 'left', { src: ['a', 'b'] }),
    rule('2', 'a', 'left'),
    rule('3', 'b', 'right', { src: ['a', 'b'] }),
  );
  t.strictSame(shape(shadowed), [2, 3, 3], 'what a rule that decides all hides does not count');
  const next = of(rule('1', 'a', 'left', { dst: ['left', 'right'] }));
  t.equal(next.destinations[4].length, 3, 'neighbours of one class are one interval');
  t.end();
});

t.test('limits are refused by name', (t) => {
  const error = new PolicyTooLargeError('pairsMax', 4_000_001);
  t.equal(error.message, 'Cannot compile policy: it needs 4000001 for pairsMax, the limit is 4000000');
  t.strictSame(CLASSIFY_LIMITS, {
    classesMax: 65_536,
    pairsMax: 4_000_000,
    listsMax: 65_536,
    listRulesMax: 2_000_000,
  });
  /** One address for each set of rules, given as bits, that is to match it. */
  const side = (first: bigint, sets: readonly number[]) =>
    sets.map((bits, index) => ({
      bits,
      name: `${first}-${index}`,
      prefix: { family: 4 as const, value: first + BigInt(index), length: 32 },
    }));
  const refusal = (sourceSets: readonly number[], destinationSets: readonly number[]) => {
    const [sources, destinations] = [side(0n, sourceSets), side(1n << 24n, destinationSets)];
    const namesOf = (groups: typeof sources, bit: number) =>
      groups.filter(({ bits }) => (bits >> bit) & 1).map(({ name }) => name);
    const rules = Array.from({ length: 17 }, (_, bit) =>
      rule('', '', '', { src: namesOf(sources, bit), dst: namesOf(destinations, bit), protocol: 'TCP' }),
    );
    const groups = new Map([...sources, ...destinations].map(({ name, prefix }) => [name, [prefix]]));
    try {
      classify(inForce(...rules), groups, []);
    } catch (error) {
      return error;
    }
    return undefined;
  };
  const upTo = (count: number) => Array.from({ length: count }, (_, index) => index + 1);
  const refused = (limit: string, found: number) => ({ name: 'PolicyTooLargeError', limit, found });
  // And one class for the rest of the addresses.
  t.match(refusal(upTo(65_536), [1]), refused('classesMax', 65_537));
  t.match(refusal([1], upTo(65_536)), refused('classesMax', 65_537));
  t.equal(refusal([1], upTo(65_535)), undefined, 'as many as are allowed');
  t.match(refusal(upTo(2_000), upTo(2_000)), refused('pairsMax', 2_001 ** 2));
  const withLast = upTo(65_535).map((bits) => bits | (1 << 16));
  t.match(refusal([0xffff, 0x10000 | 0x7fff], withLast), refused('listsMax', 65_537));
  t.end();
});

t.test('bits', (t) => {
  const bits = emptyBits(70);
  for (const index of [0, 31, 32, 63, 69]) setBit(bits, index);
  t.strictSame([...commonBits(bits, bits)], [0, 31, 32, 63, 69]);
  t.equal(bits.length, 3);
  t.end();
});
