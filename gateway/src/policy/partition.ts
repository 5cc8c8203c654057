import { ADDRESS_MAX, FAMILIES, type Family } from '../net/family.js';
import { type Prefix, prefixInterval } from '../net/prefix.js';
import { type Bits, clearBit, emptyBits, equalBits, setBit } from './bits.js';

/** Addresses from `first` to `last` that the same rules can match: `classIndex` says which. */
export interface ClassInterval {
  readonly first: bigint;
  readonly last: bigint;
  readonly classIndex: number;
}

/**
 * The whole address space of both families cut into intervals, every address in exactly one. `classes` are the
 * distinct sets of rules (bit n: the rule with index n) that can match an address; one of them is usually empty.
 */
export interface Partition {
  readonly classes: readonly Bits[];
  readonly intervals: Readonly<Record<Family, readonly ClassInterval[]>>;
}

/** A group as one side of policy sees it: its prefixes, and the indexes of the rules that name it there. */
export interface SideGroup {
  readonly prefixes: readonly Prefix[];
  readonly ruleIndexes: readonly number[];
}

/** The class of a rule set, found by a hash that follows each bit's change and confirmed bit by bit. */
class ClassTable {
  readonly classes: Bits[] = [];
  readonly #byHash = new Map<number, number[]>();

  indexOf(bits: Bits, hash: number): number {
    const candidates = this.#byHash.get(hash);
    const known = candidates?.find((index) => equalBits(this.classes[index]!, bits));
    if (known !== undefined) return known;
    const index = this.classes.push(bits.slice()) - 1;
    if (candidates === undefined) this.#byHash.set(hash, [index]);
    else candidates.push(index);
    return index;
  }
}

/** Spreads rule indexes over 32 bits (the finalizer of MurmurHash3): the hash of a set is the XOR of its members'. */
function scatter(index: number): number {
  let hash = index + 1;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return hash ^ (hash >>> 16);
}

/** The rules that match at the sweep's present address. A rule leaves when the last group that brought it does. */
class ActiveRules {
  readonly bits: Bits;
  hash = 0;
  readonly #counts: Uint32Array;

  constructor(ruleCount: number) {
    this.bits = emptyBits(ruleCount);
    this.#counts = new Uint32Array(ruleCount);
  }

  add(ruleIndexes: readonly number[]): void {
    for (const index of ruleIndexes) {
      if (this.#counts[index]!++ > 0) continue;
      setBit(this.bits, index);
      this.hash ^= scatter(index);
    }
  }

  remove(ruleIndexes: readonly number[]): void {
    for (const index of ruleIndexes) {
      if (--this.#counts[index]! > 0) continue;
      clearBit(this.bits, index);
      this.hash ^= scatter(index);
    }
  }
}

interface Boundary {
  readonly at: bigint;
  readonly opens: boolean;
  /** Undefined: an excluded prefix. */
  readonly group: SideGroup | undefined;
}

function boundaries(family: Family, groups: readonly SideGroup[], excluded: readonly Prefix[]): Boundary[] {
  const found: Boundary[] = [];
  const push = (prefix: Prefix, group: SideGroup | undefined) => {
    if (prefix.family !== family) return;
    const { first, last } = prefixInterval(prefix);
    found.push({ at: first, opens: true, group }, { at: last + 1n, opens: false, group });
  };
  for (const group of groups) for (const prefix of group.prefixes) push(prefix, group);
  for (const prefix of excluded) push(prefix, undefined);
  return found.sort((a, b) => (a.at < b.at ? -1 : a.at > b.at ? 1 : 0));
}

/**
 * Cuts the address space into classes for one side of policy. Classes are keyed by rules, not by membership in
 * groups: groups that overlap at random make almost as many membership sets as they have prefixes.
 *
 * Cost: n log n in the number of prefixes, plus the rules of each group at each of its boundaries.
 */
export function partition(
  groups: readonly SideGroup[],
  excluded: readonly Prefix[],
  ruleCount: number,
): Partition {
  const table = new ClassTable();
  const nobody = emptyBits(ruleCount);
  const sweep = (family: Family): ClassInterval[] => {
    const active = new ActiveRules(ruleCount);
    const intervals: ClassInterval[] = [];
    let excludedDepth = 0;
    let first = 0n;
    const closeAt = (end: bigint) => {
      if (end === first) return;
      const classIndex =
        excludedDepth > 0 ? table.indexOf(nobody, 0) : table.indexOf(active.bits, active.hash);
      const previous = intervals.at(-1);
      if (previous?.classIndex === classIndex) {
        intervals[intervals.length - 1] = { ...previous, last: end - 1n };
      } else {
        intervals.push({ first, last: end - 1n, classIndex });
      }
      first = end;
    };
    for (const { at, opens, group } of boundaries(family, groups, excluded)) {
      closeAt(at);
      if (group === undefined) excludedDepth += opens ? 1 : -1;
      else if (opens) active.add(group.ruleIndexes);
      else active.remove(group.ruleIndexes);
    }
    closeAt(ADDRESS_MAX[family] + 1n);
    return intervals;
  };
  const [intervals4, intervals6] = FAMILIES.map(sweep);
  return { classes: table.classes, intervals: { 4: intervals4!, 6: intervals6! } };
}
