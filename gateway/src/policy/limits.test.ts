import t from 'tap';
import { type Prefix, sortPrefixes } from '../net/prefix.js';
import { Compiler } from './compile.js';
import { prefixes, rule } from './fixture.js';
import { policyInForce, RuleNumbers } from './in-force.js';
import { POLICY_LIMITS, PolicyTooLargeError } from './limits.js';
import type { PolicyRule } from './model.js';

const NOW = new Date('2026-11-01T00:00:00Z');

/** One compiler, and what it says of one policy after another: nothing, or which limit it is over. */
function compiler(groups: ReadonlyMap<string, readonly Prefix[]>) {
  const compiler = new Compiler('limits');
  const numbers = new RuleNumbers();
  const parts = new Map([...groups].map(([name, members]) => [name, [sortPrefixes(members)]]));
  return (...rules: readonly PolicyRule[]): unknown => {
    const policy = policyInForce({ rules, defaultAction: { action: 'DENY', logging: false } }, NOW, numbers);
    try {
      compiler.compile({ policy, groups: parts, excluded: [] });
      return undefined;
    } catch (error) {
      return error;
    }
  };
}

/** One address for each set of rules, given as bits, that is to match it. */
const side = (first: bigint, sets: readonly number[]) =>
  sets.map((bits, index) => ({
    bits,
    prefix: { family: 4, value: first + BigInt(index), length: 32 } satisfies Prefix,
  }));

/** 17 rules, of which each address has some: a group a rule and a side. */
function large(sourceSets: readonly number[], destinationSets: readonly number[]) {
  const sides = { s: side(0n, sourceSets), d: side(1n << 24n, destinationSets) };
  const bits = Array.from({ length: 17 }, (_, bit) => bit);
  const groups = new Map(
    bits.flatMap((bit) =>
      (['s', 'd'] as const).map((name) => {
        const members = sides[name].filter(({ bits }) => (bits >> bit) & 1).map(({ prefix }) => prefix);
        return [`${name}${bit}`, members] as const;
      }),
    ),
  );
  const rules = bits.map((bit) => rule(`rule ${bit}`, `s${bit}`, `d${bit}`, { protocol: 'TCP' }));
  return { groups, rules };
}

/** Lists of two rules each: for each pair of these rules an address, and all of them from each of two sources. */
function manyLists(rulesOfOne: number) {
  const groups = new Map<string, Prefix[]>([
    ['s0', prefixes('10.0.0.0/32')],
    ['s1', prefixes('10.0.0.1/32')],
  ]);
  const numbers = Array.from({ length: rulesOfOne }, (_, number) => number);
  for (const number of numbers) groups.set(`d${number}`, []);
  let value = 1n << 28n;
  for (const a of numbers) {
    for (const b of numbers.slice(a + 1)) {
      for (const number of [a, b]) groups.get(`d${number}`)!.push({ family: 4, value, length: 32 });
      value++;
    }
  }
  const rules = ['s0', 's1'].flatMap((source) =>
    numbers.map((number) => {
      const portRanges = [{ lo: 1 + number, hi: 1 + number }];
      return rule(`${source} ${number}`, source, `d${number}`, { protocol: 'TCP', portRanges });
    }),
  );
  return { groups, rules };
}

const upTo = (count: number) => Array.from({ length: count }, (_, index) => index + 1);
const over = (limit: string, found: number) => ({ name: 'PolicyTooLargeError', limit, found });

t.test('limits are refused by name', (t) => {
  const error = new PolicyTooLargeError('pairsMax', 16_000_001);
  t.equal(error.message, 'Cannot compile policy: it needs 16000001 for pairsMax, the limit is 16000000');
  t.strictSame(POLICY_LIMITS, {
    rulesMax: 16_383,
    classesMax: 65_536,
    pairsMax: 16_000_000,
    listsMax: 65_536,
  });
  const refusal = (sourceSets: readonly number[], destinationSets: readonly number[]) => {
    const { groups, rules } = large(sourceSets, destinationSets);
    return compiler(groups)(...rules);
  };
  // And one class for the rest of the addresses.
  t.match(refusal(upTo(65_536), [1]), over('classesMax', 65_537));
  t.match(refusal([1], upTo(65_536)), over('classesMax', 65_537));
  t.match(refusal(upTo(4_000), upTo(4_000)), over('pairsMax', 4_001 ** 2));
  const { groups, rules } = manyLists(258);
  t.match(compiler(groups)(...rules), over('listsMax', 2 * ((258 * 257) / 2) + 1));
  const many = Array.from({ length: 16_384 }, (_, index) => rule(`rule ${index}`, 'a', 'a'));
  t.match(compiler(new Map([['a', prefixes('10.0.0.0/8')]]))(...many), over('rulesMax', 16_384));
  t.end();
});

t.test('what only takes permission away is not refused for its size', (t) => {
  const { groups, rules } = large(upTo(65_535), [1]);
  const more = new Map<string, readonly Prefix[]>(groups).set('one more', prefixes('200.0.0.0/32'));
  const compile = compiler(more);
  t.equal(compile(...rules), undefined, 'as many classes as are allowed');
  const deny = rule('deny', 'one more', 'd0', { action: 'DENY' });
  t.equal(compile(deny, ...rules), undefined, 'one more, by a DENY');
  t.equal(compile(deny, ...rules.slice(1)), undefined, 'a PERMIT less');
  t.match(compile(deny, rule('permit', 'one more', 'd1'), ...rules), {
    name: 'PolicyTooLargeError',
    limit: 'classesMax',
  });
  t.end();
});
