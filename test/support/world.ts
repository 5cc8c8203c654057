import fc from 'fast-check';
import type { Address } from 'sluice-gateway/net/address.js';
import { ADDRESS_MAX, BITS, FAMILIES, type Family } from 'sluice-gateway/net/family.js';
import {
  comparePrefixes,
  type Prefix,
  prefixInterval,
  prefixOf,
  printPrefix,
  sortPrefixes,
} from 'sluice-gateway/net/prefix.js';
import type { PolicyInput } from 'sluice-gateway/policy/compile.js';
import type { Connection, GroupPrefixes } from 'sluice-gateway/policy/evaluate.js';
import { policyInForce, type RuleNumbers } from 'sluice-gateway/policy/in-force.js';
import type { Action, DefaultAction, PolicyRule } from 'sluice-gateway/policy/model.js';

const NOW = new Date('2026-11-01T00:00:00Z');
/** One of these stands on both sides. */
const SOURCES = ['a', 'b', 'c'] as const;
const DESTINATIONS = ['c', 'd', 'e'] as const;
const GROUPS = [...new Set([...SOURCES, ...DESTINATIONS])];

/** Few bits differ, so that prefixes nest and touch, at the top of the space too. */
export const nestingPrefix: fc.Arbitrary<Prefix> = fc
  .record({
    family: fc.constantFrom<Family>(4, 4, 6),
    value: fc.bigInt(0n, ADDRESS_MAX[6]),
    hostBits: fc.oneof(fc.nat(3), fc.nat(128)),
  })
  .map(({ family, value, hostBits }) => {
    const few = value & (family === 4 ? 0xe000_0007n : (0xen << 124n) | 7n);
    return prefixOf({ family, value: few }, BITS[family] - (hostBits % (BITS[family] + 1)));
  });

/** A rule between such a group and others, for all services, ends what can be told apart behind it. */
const EVERYWHERE = FAMILIES.map((family) => prefixOf({ family, value: 0n }, 0));

const TOP_GROUP = 'top';
const TOPS = FAMILIES.map((family) => prefixOf({ family, value: ADDRESS_MAX[family] }, BITS[family] - 4));
const TOP_RULE: PolicyRule = {
  name: 'top',
  priority: 0,
  action: 'PERMIT',
  src: [TOP_GROUP],
  dst: [TOP_GROUP],
  protocol: 'ANY',
  portRanges: [],
  logging: false,
  enforcement: 'ENFORCE',
};

type RuleDraft = Omit<PolicyRule, 'name' | 'priority'>;

/** Numbers choose among what is there at the time, so that a walk can be shrunk. */
export type Step =
  | {
      readonly kind: 'members';
      readonly group: string;
      readonly add: readonly Prefix[];
      readonly drop: number;
    }
  | { readonly kind: 'empty' | 'back'; readonly group: string }
  | { readonly kind: 'add'; readonly at: number; readonly rule: RuleDraft }
  | { readonly kind: 'remove'; readonly at: number }
  | { readonly kind: 'edit'; readonly at: number; readonly change: Partial<RuleDraft> }
  | { readonly kind: 'move'; readonly at: number; readonly to: number }
  | { readonly kind: 'default'; readonly to: DefaultAction }
  | { readonly kind: 'own'; readonly prefixes: readonly Prefix[] }
  | { readonly kind: 'both'; readonly steps: readonly Step[] };

const anyGroup = fc.constantFrom(...GROUPS);
const sources = fc.subarray([...SOURCES], { minLength: 1 });
const destinations = fc.subarray([...DESTINATIONS], { minLength: 1 });
const action = fc.constantFrom<Action>('PERMIT', 'PERMIT', 'DENY', 'REJECT');
const enforcement = fc.constantFrom('ENFORCE', 'ENFORCE', 'ENFORCE', 'MONITOR', 'DISABLE');
const ports = fc.constantFrom(
  [],
  [],
  [{ lo: 443, hi: 443 }],
  [{ lo: 1, hi: 500 }],
  [
    { lo: 22, hi: 22 },
    { lo: 440, hi: 65_535 },
  ],
);
const service = fc
  .record({ protocol: fc.constantFrom('ANY', 'ANY', 'TCP', 'UDP', 'ICMP'), portRanges: ports })
  .map((drawn) => (drawn.protocol === 'ICMP' ? { ...drawn, portRanges: [] } : drawn));
const ruleDraft: fc.Arbitrary<RuleDraft> = fc
  .record({ action, enforcement, logging: fc.boolean(), src: sources, dst: destinations, service })
  .map(({ service, ...rest }) => ({ ...rest, ...service }) as RuleDraft);

const members = fc.record({
  kind: fc.constant('members' as const),
  group: anyGroup,
  add: fc.oneof(
    { weight: 8, arbitrary: fc.array(nestingPrefix, { maxLength: 3 }) },
    { weight: 1, arbitrary: fc.constant(EVERYWHERE) },
  ),
  drop: fc.nat(2 ** 8 - 1),
});
const simpleStep: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: members },
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constantFrom('empty' as const, 'back' as const), group: anyGroup }),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('add' as const), at: fc.nat(), rule: ruleDraft }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('remove' as const), at: fc.nat() }) },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('edit' as const),
      at: fc.nat(),
      change: fc.oneof(
        fc.record({ action }),
        fc.record({ enforcement }) as fc.Arbitrary<Partial<RuleDraft>>,
        fc.record({ logging: fc.boolean() }),
        fc.record({ src: sources }),
        fc.record({ dst: destinations }),
        service as fc.Arbitrary<Partial<RuleDraft>>,
      ),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('move' as const), at: fc.nat(), to: fc.nat() }) },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('default' as const),
      to: fc.record({ action, logging: fc.boolean() }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('own' as const),
      prefixes: fc.array(nestingPrefix, { maxLength: 2 }),
    }),
  },
);

/** One change, or some that come at once. */
export const stepArbitrary: fc.Arbitrary<Step> = fc.oneof(
  { weight: 5, arbitrary: simpleStep },
  {
    weight: 1,
    arbitrary: fc
      .array(simpleStep, { minLength: 2, maxLength: 4 })
      .map((steps): Step => ({ kind: 'both', steps })),
  },
);

export interface WorldInput extends PolicyInput {
  /** The groups again, each in one piece. */
  readonly whole: GroupPrefixes;
  /** What the address space is cut by, on each side. */
  readonly stretches: string;
}

/** Policy and what its groups hold, at one moment of a walk. */
export class World {
  #rules: readonly PolicyRule[];
  #named = 0;
  #default: DefaultAction = { action: 'DENY', logging: true };
  own: readonly Prefix[] = [];
  groups: GroupPrefixes = new Map(GROUPS.map((name) => [name, []]));
  #parts = new Map<string, readonly (readonly Prefix[])[]>();
  /** What each group held when it last held anything. */
  readonly #held = new Map<string, readonly Prefix[]>();

  /** `isTopped`: the top of the address space is of a class of its own, so that less of what changes reaches it. */
  constructor(isTopped: boolean) {
    this.#rules = isTopped ? [TOP_RULE] : [];
    if (isTopped) this.#setMembers(TOP_GROUP, TOPS);
  }

  take(step: Step): void {
    switch (step.kind) {
      case 'members':
        this.#setMembers(
          step.group,
          this.groups
            .get(step.group)!
            .filter((_, index) => ((step.drop >> (index % 8)) & 1) === 0)
            .concat(step.add),
        );
        return;
      case 'empty':
        this.#setMembers(step.group, []);
        return;
      case 'back':
        this.#setMembers(step.group, this.#held.get(step.group) ?? []);
        return;
      case 'add': {
        const rule = { ...step.rule, name: `rule ${this.#named++}`, priority: 0 };
        this.#rules = this.#rules.toSpliced(step.at % (this.#rules.length + 1), 0, rule);
        return;
      }
      case 'default':
        this.#default = step.to;
        return;
      case 'own':
        this.own = step.prefixes;
        return;
      case 'both':
        for (const each of step.steps) this.take(each);
        return;
      default:
        if (this.#rules.length > 0) this.#changeRule(step, step.at % this.#rules.length);
    }
  }

  #changeRule(step: Extract<Step, { kind: 'remove' | 'edit' | 'move' }>, at: number): void {
    const rule = this.#rules[at]!;
    const without = this.#rules.toSpliced(at, 1);
    if (step.kind === 'remove') this.#rules = without;
    else if (step.kind === 'move') this.#rules = without.toSpliced(step.to % this.#rules.length, 0, rule);
    else this.#rules = this.#rules.with(at, withoutIcmpPorts({ ...rule, ...step.change }));
  }

  /** Cut as bodies are, by address range: a part that holds the same is the same array. */
  #setMembers(group: string, prefixes: readonly Prefix[]): void {
    const sorted = sortPrefixes(prefixes);
    if (sorted.length > 0) this.#held.set(group, sorted);
    this.groups = new Map(this.groups).set(group, sorted);
    const rangeOf = ({ family, value }: Prefix) => `${family} ${value >> BigInt(BITS[family] - 1)}`;
    const before = this.#parts.get(group) ?? [];
    const parts = [...Map.groupBy(sorted, rangeOf).values()].map(
      (part) => before.find((known) => areSame(known, part)) ?? part,
    );
    this.#parts.set(group, parts);
  }

  input(numbers: RuleNumbers): WorldInput {
    const policy = policyInForce({ rules: this.#rules, defaultAction: this.#default }, NOW, numbers);
    const used = (side: 'src' | 'dst') => [...new Set(policy.rules.flatMap(({ rule }) => rule[side]))].sort();
    const texts = (prefixes: readonly Prefix[]) => prefixes.map(printPrefix).join();
    return {
      policy,
      stretches: [
        texts(this.own),
        ...[used('src'), used('dst')].map((names) =>
          names.map((name) => `${name} ${texts(this.groups.get(name)!)}`).join(';'),
        ),
      ].join('|'),
      groups: new Map(this.#parts),
      excluded: this.own,
      whole: this.groups,
    };
  }
}

const withoutIcmpPorts = (rule: PolicyRule): PolicyRule =>
  rule.protocol === 'ICMP' ? { ...rule, portRanges: [] } : rule;

const areSame = (a: readonly Prefix[], b: readonly Prefix[]) =>
  a.length === b.length && a.every((prefix, index) => comparePrefixes(prefix, b[index]!) === 0);

/** The addresses at and beside the boundaries of everything. */
function edges({ groups, own }: World): Address[] {
  const all = [...groups.values(), own].flat();
  return FAMILIES.flatMap((family) => {
    const values = all
      .filter((prefix) => prefix.family === family)
      .flatMap((prefix) => {
        const { first, last } = prefixInterval(prefix);
        return [first - 1n, first, last, last + 1n];
      });
    return [...new Set([0n, ADDRESS_MAX[family], ...values])]
      .filter((value) => value >= 0n && value <= ADDRESS_MAX[family])
      .map((value) => ({ family, value }));
  });
}

const SERVICES = [
  [6, 443],
  [6, 22],
  [17, 0],
  [17, 440],
  [1, 0],
  [58, 0],
  [50, 0],
] as const;

/** One connection for each two numbers: where from, and where to. */
export function someConnections(world: World, draws: readonly number[]): Connection[] {
  const points = edges(world);
  return draws.slice(1).map((draw, index) => {
    const src = points[draws[index]! % points.length]!;
    const near = points.filter(({ family }) => family === src.family);
    const [protocol, dstPort] = SERVICES[(draw >>> 8) % SERVICES.length]!;
    return { src, dst: near[draw % near.length]!, protocol, dstPort };
  });
}

/** A connection of each kind between any two stretches of addresses. */
export function everyConnection(world: World): Connection[] {
  const points = edges(world);
  return points.flatMap((src) =>
    points
      .filter(({ family }) => family === src.family)
      .flatMap((dst) => SERVICES.map(([protocol, dstPort]) => ({ src, dst, protocol, dstPort }))),
  );
}
