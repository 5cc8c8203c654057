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

/** Whether two rules differ in nothing but protocol, ports and logging: records of what either decided read the same. */
const areAlike = (a: RuleInForce, b: RuleInForce) =>
  a.number === b.number &&
  (a.rule === b.rule ||
    (a.name === b.name &&
      a.action === b.action &&
      a.enforced === b.enforced &&
      areSame(a.rule.src, b.rule.src) &&
      areSame(a.rule.dst, b.rule.dst)));

const areAllAlike = (before: PolicyInForce, after: PolicyInForce) =>
  before.rules.length === after.rules.length &&
  before.byDefault.action === after.byDefault.action &&
  before.byDefault.logging === after.byDefault.logging &&
  before.rules.every((rule, position) => areAlike(rule, after.rules[position]!));

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

  /**
   * Takes a policy. Gives the positions of rules that say something else to the kernel than before, where that is of
   * services or logging alone, and the same rules are there in the same order; undefined for any other policy.
   */
  take(policy: PolicyInForce, groups: GroupParts): readonly number[] | undefined {
    const before = this.#policy;
    const isKnown = before !== undefined && this.#universalOf(groups) === this.#universal;
    if (isKnown && policy === before) return [];
    this.#policy = policy;
    const changed = isKnown && areAllAlike(before, policy) ? this.#takeTexts(before, policy) : undefined;
    if (changed !== undefined) return changed;
    this.texts = policy.rules.map(textOf);
    this.ofGroup = this.#byGroup(policy);
    // Of the groups that this policy is the first to name too: `isBroad` holds for as long as these are the same.
    this.#universal = this.#universalOf(groups);
    const isBroad = (names: readonly string[]) => names.some((name) => isUniversal(groups.get(name)));
    this.isBroad = {
      src: policy.rules.map(({ rule }) => isBroad(rule.dst)),
      dst: policy.rules.map(({ rule }) => isBroad(rule.src)),
    };
    this.endsList = policy.rules.map(endsList);
    return undefined;
  }

  /** Undefined, and nothing taken, where classes may be others: a broad rule ends lists, or ends them no more. */
  #takeTexts(before: PolicyInForce, { rules }: PolicyInForce): readonly number[] | undefined {
    const changed: number[] = [];
    const texts = [...this.texts];
    const ends = [...this.endsList];
    for (const [position, rule] of rules.entries()) {
      // The rule says it all, and whoever reads policy anew makes others.
      if (rule.rule === before.rules[position]!.rule) continue;
      const text = textOf(rule);
      if (text === texts[position]) continue;
      texts[position] = text;
      ends[position] = endsList(rule);
      const isBroad = SIDES.some((side) => this.isBroad[side][position]);
      if (isBroad && ends[position] !== this.endsList[position]) return undefined;
      changed.push(position);
    }
    this.texts = texts;
    this.endsList = ends;
    return changed;
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
