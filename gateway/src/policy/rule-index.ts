import type { Family } from '../net/family.js';
import type { Prefix } from '../net/prefix.js';
import type { RulePositions } from './classes.js';
import type { PolicyInForce, RuleInForce } from './in-force.js';
import type { GroupParts } from './members.js';
import { SIDES, type SideName } from './shard-content.js';
import { OWN_ADDRESSES } from './side.js';

type OfSides<T> = Readonly<Record<SideName, T>>;

/** All that a rule says to the kernel. */
const textOf = ({ number, action, logging, enforced, rule }: RuleInForce) =>
  JSON.stringify([number, action, logging, enforced, rule.name, rule.protocol, rule.portRanges]);

const endsList = ({ enforced, rule }: RuleInForce) =>
  enforced && rule.protocol === 'ANY' && rule.portRanges.length === 0;

const areSame = (a: readonly string[], b: readonly string[]) =>
  a.length === b.length && a.every((name, index) => name === b[index]);

/** What became of rules, where few changed: rules that are the same, in the same order, may have moved up or down. */
export interface RulesChange {
  /** By old position the new one; -1 where the rule went. */
  readonly positions: Int32Array;
  /** Old positions. */
  readonly removed: readonly number[];
  /** New positions. A rule that matches something else than before, or moved past others, went and came. */
  readonly added: readonly number[];
  /** Those that rules name which came or went. */
  readonly groups: OfSides<ReadonlySet<number>>;
}

/** More rules change all at once. */
const CHANGED_RULES_MAX = 64;

/** Whether records of what a rule decided read otherwise now, under the number that it keeps. */
const readsOtherwise = (a: RuleInForce, b: RuleInForce | undefined) =>
  b !== undefined && (a.name !== b.name || a.action !== b.action || a.enforced !== b.enforced);

/** The rules of the policy in force by their position in the order of evaluation, and by group. */
export class RuleIndex {
  readonly #groupNumbers = new Map<string, number>();
  #policy: PolicyInForce | undefined;
  #universal = '';
  /** By position: all that the rule says to the kernel. */
  texts: readonly string[] = [];
  /** By position: whether the rule matches every address of the other side. */
  isBroad: OfSides<readonly boolean[]> = { src: [], dst: [] };
  /** By position: whether no rule behind it can be reached, where it matches at all. */
  endsList: readonly boolean[] = [];
  ofGroup: OfSides<ReadonlyMap<number, RulePositions>> = { src: new Map(), dst: new Map() };

  get policy(): PolicyInForce | undefined {
    return this.#policy;
  }

  /** Every group that some policy has named, by its number. */
  get groups(): ReadonlyMap<string, number> {
    return this.#groupNumbers;
  }

  /** Takes a policy. Gives which rules changed; undefined where that is more than can be told. */
  take(policy: PolicyInForce, groups: GroupParts): RulesChange | undefined {
    const before = this.#policy;
    const isKnown = before !== undefined && this.#universalOf(groups) === this.#universal;
    const change = isKnown ? this.#changeTo(before, policy) : undefined;
    this.#policy = policy;
    if (change !== undefined && change.removed.length + change.added.length === 0) return change;
    this.texts = this.#textsOf(policy, change);
    this.ofGroup = this.#byGroup(policy);
    // Of the groups that this policy is the first to name too: `isBroad` holds for as long as these are the same.
    this.#universal = this.#universalOf(groups);
    const universal = new Set(JSON.parse(this.#universal) as readonly string[]);
    const isBroad = (names: readonly string[]) => names.some((name) => universal.has(name));
    this.isBroad = {
      src: policy.rules.map(({ rule }) => isBroad(rule.dst)),
      dst: policy.rules.map(({ rule }) => isBroad(rule.src)),
    };
    this.endsList = policy.rules.map(endsList);
    return change;
  }

  #textsOf({ rules }: PolicyInForce, change: RulesChange | undefined): readonly string[] {
    if (change === undefined) return rules.map(textOf);
    const texts: string[] = [];
    for (const [position, to] of change.positions.entries()) if (to >= 0) texts[to] = this.texts[position]!;
    for (const position of change.added) texts[position] = textOf(rules[position]!);
    return texts;
  }

  #changeTo(before: PolicyInForce, after: PolicyInForce): RulesChange | undefined {
    const { action, logging } = before.byDefault;
    if (action !== after.byDefault.action || logging !== after.byDefault.logging) return undefined;
    const now = new Map(after.rules.map(({ number }, position) => [number, position]));
    const added = new Set(now.values());
    const positions = new Int32Array(before.rules.length);
    const removed: number[] = [];
    let last = -1;
    for (const [position, rule] of before.rules.entries()) {
      const to = now.get(rule.number) ?? -1;
      const other = after.rules[to];
      if (readsOtherwise(rule, other)) return undefined;
      const isKept = to > last && this.#isSame(position, rule, other!);
      positions[position] = isKept ? to : -1;
      if (isKept) last = to;
      if (isKept) added.delete(to);
      else removed.push(position);
    }
    if (removed.length + added.size > CHANGED_RULES_MAX) return undefined;
    const changed = [
      ...removed.map((position) => before.rules[position]!),
      ...[...added].map((position) => after.rules[position]!),
    ];
    const groupsOf = (side: SideName) =>
      new Set(changed.flatMap(({ rule }) => rule[side].map((name) => this.#numberOf(name))));
    return { positions, removed, added: [...added], groups: { src: groupsOf('src'), dst: groupsOf('dst') } };
  }

  #isSame(position: number, { rule }: RuleInForce, other: RuleInForce): boolean {
    // Whoever reads policy anew makes other objects.
    if (rule === other.rule) return true;
    const isBetweenSame = areSame(rule.src, other.rule.src) && areSame(rule.dst, other.rule.dst);
    return isBetweenSame && this.texts[position] === textOf(other);
  }

  #universalOf(groups: GroupParts): string {
    return JSON.stringify([...this.#groupNumbers.keys()].filter((name) => isUniversal(groups.get(name))));
  }

  #numberOf(group: string): number {
    let number = this.#groupNumbers.get(group);
    if (number === undefined) {
      number = OWN_ADDRESSES + 1 + this.#groupNumbers.size;
      this.#groupNumbers.set(group, number);
    }
    return number;
  }

  #byGroup(policy: PolicyInForce): OfSides<ReadonlyMap<number, RulePositions>> {
    const byGroup = { src: new Map<number, number[]>(), dst: new Map<number, number[]>() };
    for (const [position, { rule }] of policy.rules.entries()) {
      for (const side of SIDES) {
        for (const name of new Set(rule[side])) {
          const group = this.#numberOf(name);
          const positions = byGroup[side].get(group);
          if (positions === undefined) byGroup[side].set(group, [position]);
          else positions.push(position);
        }
      }
    }
    const packed = (map: ReadonlyMap<number, number[]>) =>
      new Map([...map].map(([group, positions]) => [group, Uint16Array.from(positions)]));
    return { src: packed(byGroup.src), dst: packed(byGroup.dst) };
  }
}

/** By part, whether it has the whole of a family: parts don't change. */
const wholes = new WeakMap<readonly Prefix[], Readonly<Record<Family, boolean>>>();

function wholesOf(part: readonly Prefix[]): Readonly<Record<Family, boolean>> {
  let found = wholes.get(part);
  if (found === undefined) {
    const has = (family: Family) => part.some((prefix) => prefix.length === 0 && prefix.family === family);
    found = { 4: has(4), 6: has(6) };
    wholes.set(part, found);
  }
  return found;
}

/** Whether a group holds every address but the gateway's own. */
function isUniversal(parts: readonly (readonly Prefix[])[] = []): boolean {
  return parts.some((part) => wholesOf(part)[4]) && parts.some((part) => wholesOf(part)[6]);
}
