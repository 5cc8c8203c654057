import fc from 'fast-check';
import type { Address } from 'sluice-gateway/net/address.js';
import { BITS, FAMILIES, type Family } from 'sluice-gateway/net/family.js';
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

/** A number that becomes one below any bound: such draws shrink to 0, whatever the bound came from. */
const DRAWN_MAX = (1n << 128n) - 1n;
const drawn = fc.bigInt({ min: 0n, max: DRAWN_MAX });
const pick = <T>(list: readonly T[], index: number): T => list[index % list.length]!;
const INDEX_MAX = 2 ** 16;

function addressIn(prefix: Prefix, offset: bigint): Address {
  const { first, last } = prefixInterval(prefix);
  return { family: prefix.family, value: first + (offset % (last - first + 1n)) };
}

/** A prefix in the space, at least as long as the part of it that it lies in; short ones as often as long ones. */
function prefixArbitrary({ sources, destinations }: Space): fc.Arbitrary<Prefix> {
  const parts = [...sources, ...destinations];
  const member = fc
    .record({ part: fc.nat(INDEX_MAX), offset: drawn, length: fc.nat(128) })
    .map(({ part, offset, length }) => {
      const space = pick(parts, part);
      const bits = space.length + (length % (BITS[space.family] - space.length + 1));
      return prefixOf(addressIn(space, offset), bits);
    });
  return fc.oneof(
    { weight: 6, arbitrary: member },
    {
      weight: 1,
      arbitrary: fc.constantFrom<Prefix>(...FAMILIES.map((family) => ({ family, value: 0n, length: 0 }))),
    },
  );
}

const RULES_MAX = 12;
/** The third stands on both sides. */
const SOURCE_GROUPS = ['g0', 'g1', 'g2'] as const;
const DESTINATION_GROUPS = ['g2', 'g3', 'g4'] as const;
const groupNames = ['g0', 'g1', 'g2', 'g3', 'g4'] as const;

const portRange = fc
  .tuple(fc.integer({ min: 1, max: 1100 }), fc.integer({ min: 0, max: 200 }))
  .map(([lo, width]) => ({ lo, hi: lo + width }));

const someOf = (names: readonly string[]) =>
  fc.uniqueArray(fc.constantFrom(...names), { minLength: 1, maxLength: 3 });

const ruleArbitrary: fc.Arbitrary<PolicyRule> = fc
  .record({
    number: fc.nat(99),
    action: fc.constantFrom<Action>('PERMIT', 'PERMIT', 'DENY', 'REJECT'),
    protocol: fc.constantFrom<Protocol>('ANY', 'TCP', 'UDP', 'ICMP'),
    portRanges: fc.array(portRange, { maxLength: 4 }),
    enforcement: fc.constantFrom<Enforcement>('ENFORCE', 'ENFORCE', 'ENFORCE', 'MONITOR', 'DISABLE'),
    logging: fc.boolean(),
    src: someOf(SOURCE_GROUPS),
    dst: someOf(DESTINATION_GROUPS),
  })
  .map(({ number, ...rule }) => ({
    ...rule,
    name: `rule ${number}`,
    priority: 0,
    portRanges: rule.protocol === 'ICMP' ? [] : rule.portRanges,
  }));

const inOrder = (rules: readonly PolicyRule[]) => rules.map((rule, priority) => ({ ...rule, priority }));
const byName = { selector: ({ name }: PolicyRule) => name };

const policyArbitrary: fc.Arbitrary<Policy> = fc.record({
  rules: fc.uniqueArray(ruleArbitrary, { maxLength: RULES_MAX, ...byName }).map(inOrder),
  defaultAction: fc.record({
    action: fc.constantFrom<Action>('DENY', 'DENY', 'PERMIT', 'REJECT'),
    logging: fc.boolean(),
  }),
});

function groupsArbitrary(space: Space): fc.Arbitrary<GroupPrefixes> {
  const members = fc.array(prefixArbitrary(space), { maxLength: 6 });
  return fc
    .tuple(...groupNames.map(() => members))
    .map((members) => new Map(groupNames.map((name, index) => [name, members[index]!])));
}

/** First and last addresses of groups' prefixes in the space, and their neighbours outside. */
function edgesOf(spaces: readonly Prefix[], groups: GroupPrefixes): Address[] {
  const edges = [...groups.values()].flat().flatMap((prefix) => {
    const { family, first, last } = prefixInterval(prefix);
    return [first - 1n, first, last, last + 1n].map((value) => ({ family, value }));
  });
  return edges.filter((edge) =>
    spaces.some((space) => {
      const { first, last } = prefixInterval(space);
      return space.family === edge.family && first <= edge.value && edge.value <= last;
    }),
  );
}

/** What a connection is made of once policy and groups are known: their boundaries as often as anywhere. */
const drawnConnection = fc.record({
  family: fc.constantFrom<Family>(4, 6),
  src: fc.record({ isEdge: fc.boolean(), index: fc.nat(INDEX_MAX), offset: drawn }),
  dst: fc.record({ isEdge: fc.boolean(), index: fc.nat(INDEX_MAX), offset: drawn }),
  protocol: fc.constantFrom<'TCP' | 'UDP' | 'ICMP' | number>('TCP', 'UDP', 'TCP', 'UDP', 'ICMP', 50, 89, 253),
  port: fc.record({ isEdge: fc.boolean(), index: fc.nat(INDEX_MAX), anywhere: fc.nat(65_535) }),
});
type DrawnConnection = typeof drawnConnection extends fc.Arbitrary<infer Drawn> ? Drawn : never;

const PROTOCOL_NUMBER: Readonly<Record<'TCP' | 'UDP' | 'ICMP', (family: Family) => number>> = {
  TCP: () => 6,
  UDP: () => 17,
  ICMP: (family) => (family === 4 ? 1 : 58),
};

function connectionOf(
  { family, src, dst, protocol, port }: DrawnConnection,
  space: Space,
  { groups, policy }: Pick<Case, 'groups' | 'policy'>,
): Connection {
  const address = (spaces: readonly Prefix[], { isEdge, index, offset }: DrawnConnection['src']): Address => {
    const ofFamily = spaces.filter((prefix) => prefix.family === family);
    const edges = isEdge ? edgesOf(ofFamily, groups) : [];
    return edges.length > 0 ? pick(edges, index) : addressIn(pick(ofFamily, index), offset);
  };
  const ports = policy.rules.flatMap(({ portRanges }) =>
    portRanges.flatMap(({ lo, hi }) => [lo - 1, lo, hi, hi + 1]),
  );
  return {
    src: address(space.sources, src),
    dst: address(space.destinations, dst),
    protocol: typeof protocol === 'number' ? protocol : PROTOCOL_NUMBER[protocol](family),
    dstPort: port.isEdge ? pick([443, ...ports], port.index) : port.anywhere,
  };
}

/**
 * Random policy over random overlapping groups, with connections drawn near their boundaries: so many at most. Any
 * part of a case shrinks by itself.
 */
export function caseArbitrary(space: Space, connectionsMax: number): fc.Arbitrary<Case> {
  return fc
    .record({
      policy: policyArbitrary,
      groups: groupsArbitrary(space),
      connections: fc.array(drawnConnection, { maxLength: connectionsMax, size: 'max' }),
    })
    .map(({ policy, groups, connections }) => ({
      policy,
      groups,
      connections: connections.map((drawn) => connectionOf(drawn, space, { policy, groups })),
    }));
}

/** One change to a policy or to the members of its groups; what it can't be applied to it leaves as it is. */
const changeArbitrary = (space: Space) => {
  const group = fc.constantFrom(...groupNames);
  const prefix = prefixArbitrary(space);
  const position = fc.nat(RULES_MAX);
  return fc.oneof(
    { weight: 4, arbitrary: fc.record({ kind: fc.constant('join' as const), group, prefix }) },
    { weight: 4, arbitrary: fc.record({ kind: fc.constant('leave' as const), group, position }) },
    {
      weight: 2,
      arbitrary: fc.record({
        kind: fc.constant('replace' as const),
        group,
        members: fc.array(prefix, { maxLength: 6 }),
      }),
    },
    {
      weight: 1,
      arbitrary: fc.record({ kind: fc.constant('add rule' as const), rule: ruleArbitrary, position }),
    },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('remove rule' as const), position }) },
    {
      weight: 1,
      arbitrary: fc.record({
        kind: fc.constant('default' as const),
        action: fc.constantFrom<Action>('PERMIT', 'DENY', 'REJECT'),
      }),
    },
  );
};
type Change = ReturnType<typeof changeArbitrary> extends fc.Arbitrary<infer Drawn> ? Drawn : never;

type Wanted = Pick<Case, 'policy' | 'groups'>;

function changed({ policy, groups }: Wanted, change: Change): Wanted {
  const withMembers = (group: string, members: readonly Prefix[]) => ({
    policy,
    groups: new Map([...groups, [group, members]]),
  });
  const withRules = (rules: readonly PolicyRule[]) => ({
    groups,
    policy: { ...policy, rules: inOrder(rules) },
  });
  const membersOf = (name: string) => groups.get(name)!;
  const { rules } = policy;
  switch (change.kind) {
    case 'join':
      return withMembers(change.group, [...membersOf(change.group), change.prefix]);
    case 'leave':
      return withMembers(change.group, membersOf(change.group).toSpliced(change.position, 1));
    case 'replace':
      return withMembers(change.group, change.members);
    case 'add rule':
      if (rules.some(({ name }) => name === change.rule.name)) return { policy, groups };
      return withRules(rules.toSpliced(change.position, 0, change.rule));
    case 'remove rule':
      return withRules(rules.toSpliced(change.position, 1));
    case 'default':
      return { groups, policy: { ...policy, defaultAction: { action: change.action, logging: true } } };
    default:
      return change satisfies never;
  }
}

/** A walk: policy, one change to it after the other, and at each stop connections to try it with. */
export function walkArbitrary(
  space: Space,
  stepsMax: number,
  connectionsMax: number,
): fc.Arbitrary<readonly Case[]> {
  const connections = fc.array(drawnConnection, { maxLength: connectionsMax, size: 'max' });
  const step = fc.record({
    changes: fc.array(changeArbitrary(space), { minLength: 1, maxLength: 2 }),
    connections,
  });
  return fc
    .record({
      start: fc.record({ policy: policyArbitrary, groups: groupsArbitrary(space) }),
      steps: fc.array(step, { minLength: 1, maxLength: stepsMax, size: 'max' }),
    })
    .map(({ start, steps }) => {
      let wanted: Wanted = start;
      return steps.map(({ changes, connections }) => {
        const before = wanted;
        wanted = changes.reduce(changed, wanted);
        const at = wanted;
        return {
          ...at,
          // Half of them near what was changed away.
          connections: connections.map((drawn, index) =>
            connectionOf(drawn, space, index % 2 === 0 ? at : { policy: at.policy, groups: before.groups }),
          ),
        };
      });
    });
}
