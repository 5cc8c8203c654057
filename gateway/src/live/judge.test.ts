import fc from 'fast-check';
import t from 'tap';
import type { Tuple } from '../conntrack/tuple.js';
import { Matcher } from '../matcher/matcher.js';
import type { Address } from '../net/address.js';
import { parsePrefix } from '../net/prefix.js';
import { evaluate } from '../policy/evaluate.js';
import { policyInForce } from '../policy/in-force.js';
import type { Action, Enforcement, PolicyRule, Protocol } from '../policy/model.js';
import { Judge } from './judge.js';

const seed = process.env.TEST_SEED === undefined ? Date.now() & 0xffff_ffff : Number(process.env.TEST_SEED);

/** Few addresses, so that groups overlap and connections come again. */
const addresses: readonly Address[] = [
  ...Array.from({ length: 8 }, (_, last): Address => ({ family: 4, value: 0x0a000000n + BigInt(last) })),
  ...Array.from(
    { length: 4 },
    (_, last): Address => ({ family: 6, value: (0xfd00n << 112n) + BigInt(last) }),
  ),
];
const prefixTexts = ['10.0.0.0/29', '10.0.0.0/30', '10.0.0.2/31', '10.0.0.5/32', 'fd00::/126', 'fd00::2/128'];
const GROUPS = ['a', 'b', 'c', 'd'];

const anyGroups = fc.uniqueArray(fc.constantFrom(...GROUPS, 'nowhere'), { minLength: 1, maxLength: 3 });
const anyRange = fc.tuple(fc.nat(5), fc.nat(5)).map(([a, b]) => ({ lo: Math.min(a, b), hi: Math.max(a, b) }));
const anyRule = fc
  .record({
    action: fc.constantFrom<Action>('PERMIT', 'DENY', 'REJECT'),
    src: anyGroups,
    dst: anyGroups,
    protocol: fc.constantFrom<Protocol>('TCP', 'UDP', 'ICMP', 'ANY'),
    portRanges: fc.array(anyRange, { maxLength: 2 }),
    enforcement: fc.constantFrom<Enforcement>('ENFORCE', 'ENFORCE', 'MONITOR', 'DISABLE'),
  })
  .map((rule) => ({ ...rule, portRanges: rule.protocol === 'ICMP' ? [] : rule.portRanges }));
const anyPolicy = fc.array(anyRule, { maxLength: 12 }).map((rules) => ({
  rules: rules.map(
    (rule, index): PolicyRule => ({ ...rule, name: `${index}`, priority: index, logging: true }),
  ),
  defaultAction: { action: 'DENY' as const, logging: true },
}));
const anyMembers = fc.array(fc.uniqueArray(fc.constantFrom(...prefixTexts)), {
  minLength: GROUPS.length,
  maxLength: GROUPS.length,
});
const anyTuple: fc.Arbitrary<Tuple> = fc
  .record({
    src: fc.constantFrom(...addresses),
    dst: fc.constantFrom(...addresses),
    protocol: fc.constantFrom(6, 17, 1, 58, 47),
    dstPort: fc.nat(6),
  })
  .map(({ protocol, dstPort, ...ends }) => ({
    ...ends,
    protocol,
    srcPort: protocol === 6 || protocol === 17 ? 40_000 : undefined,
    dstPort: protocol === 6 || protocol === 17 ? dstPort : undefined,
    icmp: undefined,
  }));

t.test(`the judge says what evaluate says (TEST_SEED=${seed})`, async (t) => {
  const seen = new Set<string>();
  fc.assert(
    fc.property(anyPolicy, anyMembers, fc.array(anyTuple, { maxLength: 40 }), (policy, members, tuples) => {
      const groups = new Map(GROUPS.map((name, index) => [name, members[index]!.map(parsePrefix)]));
      const excluded = [parsePrefix('10.0.0.7/32')];
      const listed = [...groups].map(([name, prefixes]) => ({ name, prefixes }));
      const inForce = policyInForce(policy, new Date());
      const judge = new Judge(inForce, Matcher.build({ groups: listed, functions: [], excluded }));
      for (const tuple of tuples) {
        const { decided } = evaluate(inForce, groups, excluded, { ...tuple, dstPort: tuple.dstPort ?? 0 });
        seen.add(decided.number === 0 ? 'default' : decided.action);
        if (judge.decide(tuple) !== decided) return false;
      }
      return true;
    }),
    { seed, numRuns: 1_000 },
  );
  t.same([...seen].sort(), ['DENY', 'PERMIT', 'REJECT', 'default']);
});
