import type { Address } from '../net/address.js';
import { FAMILIES, type Family } from '../net/family.js';
import { valueOfWords, WORDS } from '../net/words.js';
import { Classes, type RulePositions, rulesOfAtom } from '../policy/classes.js';
import type { PolicyInForce } from '../policy/in-force.js';
import type { GroupParts } from '../policy/members.js';
import { pairLists } from '../policy/pairs.js';
import { RuleIndex } from '../policy/rule-index.js';
import { SIDES, type SideName } from '../policy/shard-content.js';
import { Side } from '../policy/side.js';

/** Rules that can match the same pairs of addresses, in order, and one such pair. */
export interface RuleList {
  readonly positions: readonly number[];
  readonly src: Address;
  readonly dst: Address;
}

/** The address space cut by what rules can match: every pair of addresses has one of these lists. */
export interface Partition {
  readonly lists: readonly RuleList[];
  /** Pairs of classes; with more than asked for there are no lists. */
  readonly pairs: number;
}

/** One class of addresses: what rules it has, and an address of each family where it has one. */
interface ClassOf {
  readonly rules: RulePositions;
  readonly examples: Readonly<Partial<Record<Family, Address>>>;
}

/** The address that stands for a stretch: not its first, which is often a network's own, where there is another. */
function exampleOf(family: Family, first: bigint, last: bigint): Address {
  return { family, value: first < last ? first + 1n : first };
}

function classesOf(side: Side, rulesOf: (atom: number) => RulePositions): ClassOf[] {
  const classes = new Classes();
  classes.assign(side.liveAtoms(), rulesOf, () => false);
  const examples = new Map<number, Partial<Record<Family, Address>>>();
  for (const { family, starts, atoms, last } of side.shards) {
    const width = WORDS[family];
    const startOf = (index: number) => valueOfWords(starts.subarray(index * width, (index + 1) * width));
    for (const [index, atom] of atoms.entries()) {
      const id = classes.classOf(atom)!;
      const known = examples.get(id) ?? {};
      if (known[family] !== undefined) continue;
      const end = index + 1 < atoms.length ? startOf(index + 1) - 1n : valueOfWords(last);
      examples.set(id, { ...known, [family]: exampleOf(family, startOf(index), end) });
    }
  }
  return [...classes.live].map(([id, rules]) => ({ rules, examples: examples.get(id) ?? {} }));
}

/** A pair of addresses of two classes; undefined where they have no family in common. */
function exampleOfPair(src: ClassOf, dst: ClassOf): Pick<RuleList, 'src' | 'dst'> | undefined {
  for (const family of FAMILIES) {
    const [from, to] = [src.examples[family], dst.examples[family]];
    if (from !== undefined && to !== undefined) return { src: from, dst: to };
  }
  return undefined;
}

/** Cuts the address space by the rules in force, as the compiler does. Cost: prefixes, then pairs of classes. */
export function partition(policy: PolicyInForce, groups: GroupParts, pairsMax: number): Partition {
  const index = new RuleIndex();
  index.take(policy, groups);
  const sides = { src: new Side(), dst: new Side() };
  const classes = Object.fromEntries(
    SIDES.map((name) => {
      const side = sides[name];
      for (const [group, number] of index.groups) {
        if (index.ofGroup[name].has(number)) side.members.set(number, groups.get(group) ?? []);
      }
      side.sweepAll();
      return [name, classesOf(side, (atom) => rulesOfAtom(side.atoms, atom, index.ofGroup[name]))];
    }),
  ) as Record<SideName, ClassOf[]>;
  const { src, dst } = classes;
  const pairs = src.length * dst.length;
  if (pairs > pairsMax) return { lists: [], pairs };
  const { lists, listOf } = pairLists(
    src.map(({ rules }) => rules),
    dst.map(({ rules }) => rules),
    policy.rules.map(() => false),
  );
  const found = new Map<number, RuleList>();
  for (const [pair, list] of listOf.entries()) {
    if (found.has(list)) continue;
    const example = exampleOfPair(src[Math.floor(pair / dst.length)]!, dst[pair % dst.length]!);
    if (example !== undefined) found.set(list, { positions: lists.positionsOf(list), ...example });
  }
  return { lists: [...found.values()], pairs };
}
