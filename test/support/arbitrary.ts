import fc from 'fast-check';
import type { Address } from 'sluice-gateway/net/address.js';
import { ADDRESS_MAX, BITS, type Family } from 'sluice-gateway/net/family.js';
import { type Prefix, prefixInterval, prefixOf } from 'sluice-gateway/net/prefix.js';
import type { Connection, GroupPrefixes } from 'sluice-gateway/policy/evaluate.js';
import type { Action, Enforcement, Policy, PolicyRule, Protocol } from 'sluice-gateway/policy/model.js';

/** Policy, the groups it names, and connections to try it with. */
export interface Case {
  readonly policy: Policy;
  readonly groups: GroupPrefixes;
  readonly connections: readonly Connection[];
}

/** Where random sources and destinations come from, by family. */
export interface Space {
  readonly sources: readonly Prefix[];
  readonly destinations: readonly Prefix[];
}

function addressIn(prefix: Prefix): fc.Arbitrary<Address> {
  const { first, last } = prefixInterval(prefix);
  return fc.bigInt({ min: first, max: last }).map((value) => ({ family: prefix.family, value }));
}

/** A prefix at least as long as the one it lies in; short ones as often as long ones. */
function prefixIn(space: Prefix): fc.Arbitrary<Prefix> {
  return fc
    .tuple(addressIn(space), fc.integer({ min: space.length, max: BITS[space.family] }))
    .map(([address, length]) => prefixOf(address, length));
}

const RULES_MAX = 12;
const groupNames = ['g0', 'g1', 'g2', 'g3', 'g4', 'g5'] as const;

const portRange = fc
  .tuple(fc.integer({ min: 1, max: 1100 }), fc.integer({ min: 0, max: 200 }))
  .map(([lo, width]) => ({ lo, hi: lo + width }));

const someGroups = fc.uniqueArray(fc.constantFrom(...groupNames), { minLength: 1, maxLength: 3 });

function ruleArbitrary(index: number): fc.Arbitrary<PolicyRule> {
  return fc
    .record({
      action: fc.constantFrom<Action>('PERMIT', 'PERMIT', 'DENY', 'REJECT'),
      protocol: fc.constantFrom<Protocol>('TCP', 'UDP', 'ICMP', 'ANY'),
      portRanges: fc.array(portRange, { maxLength: 4 }),
      enforcement: fc.constantFrom<Enforcement>('ENFORCE', 'ENFORCE', 'ENFORCE', 'MONITOR', 'DISABLE'),
      logging: fc.boolean(),
      src: someGroups,
      dst: someGroups,
    })
    .map((rule) => ({
      ...rule,
      name: `rule ${index}`,
      priority: index,
      portRanges: rule.protocol === 'ICMP' ? [] : rule.portRanges,
    }));
}

const policyArbitrary: fc.Arbitrary<Policy> = fc.record({
  rules: fc
    .integer({ min: 0, max: RULES_MAX })
    .chain((count) => fc.tuple(...Array.from({ length: count }, (_, index) => ruleArbitrary(index)))),
  defaultAction: fc.record({
    action: fc.constantFrom<Action>('PERMIT', 'DENY', 'DENY', 'REJECT'),
    logging: fc.boolean(),
  }),
});

function groupsArbitrary(space: Space): fc.Arbitrary<GroupPrefixes> {
  const whole: Prefix[] = [4, 6].map((family) => ({ family: family as Family, value: 0n, length: 0 }));
  const member = fc.oneof(
    { weight: 6, arbitrary: fc.constantFrom(...space.sources, ...space.destinations).chain(prefixIn) },
    { weight: 1, arbitrary: fc.constantFrom(...whole) },
  );
  return fc
    .tuple(...groupNames.map(() => fc.array(member, { maxLength: 6 })))
    .map((members) => new Map(groupNames.map((name, index) => [name, members[index]!])));
}

/** An address near a boundary of some group as often as one anywhere in the space. */
function addressArbitrary(spaces: readonly Prefix[], groups: GroupPrefixes): fc.Arbitrary<Address> {
  const edges = [...groups.values()].flat().flatMap((prefix) => {
    const { family, first, last } = prefixInterval(prefix);
    return [first - 1n, first, last, last + 1n]
      .filter((value) => value >= 0n && value <= ADDRESS_MAX[family])
      .map((value) => ({ family, value }));
  });
  const near = edges.filter((edge) =>
    spaces.some((space) => {
      const { first, last } = prefixInterval(space);
      return space.family === edge.family && first <= edge.value && edge.value <= last;
    }),
  );
  const anywhere = fc.constantFrom(...spaces).chain(addressIn);
  return near.length === 0 ? anywhere : fc.oneof(fc.constantFrom(...near), anywhere);
}

function connectionArbitrary(
  space: Space,
  { groups, policy }: Pick<Case, 'groups' | 'policy'>,
): fc.Arbitrary<Connection> {
  const ports = policy.rules.flatMap(({ portRanges }) =>
    portRanges.flatMap(({ lo, hi }) => [lo - 1, lo, hi, hi + 1]),
  );
  const port = fc.oneof(fc.integer({ min: 0, max: 65_535 }), fc.constantFrom(443, ...ports));
  return fc.constantFrom<Family>(4, 6).chain((family) => {
    const of = (prefixes: readonly Prefix[]) =>
      addressArbitrary(
        prefixes.filter((prefix) => prefix.family === family),
        groups,
      );
    return fc.record({
      src: of(space.sources),
      dst: of(space.destinations),
      protocol: fc.constantFrom(6, 6, 17, 17, family === 4 ? 1 : 58, 50, 89, 253),
      dstPort: port,
    });
  });
}

/** Random policy over random overlapping groups, with connections drawn near their boundaries. */
export function caseArbitrary(space: Space, connections: number): fc.Arbitrary<Case> {
  return fc
    .record({ policy: policyArbitrary, groups: groupsArbitrary(space) })
    .chain((drawn) =>
      fc
        .array(connectionArbitrary(space, drawn), { minLength: connections, maxLength: connections })
        .map((list) => ({ ...drawn, connections: list })),
    );
}
