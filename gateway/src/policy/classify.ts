import { FAMILIES, type Family } from '../net/family.js';
import type { Prefix } from '../net/prefix.js';
import { commonBits } from './bits.js';
import type { GroupPrefixes } from './evaluate.js';
import type { PolicyInForce, RuleInForce } from './in-force.js';
import { type ClassInterval, type Partition, partition, type SideGroup } from './partition.js';

/**
 * Bounds on what one policy may make of the kernel; over them a policy is refused by name. `listRules` are the rules
 * of all lists, each as often as lists hold it.
 */
export const CLASSIFY_LIMITS = {
  classesMax: 65_536,
  pairsMax: 4_000_000,
  listsMax: 65_536,
  listRulesMax: 2_000_000,
} as const;

/** A policy needs more classes, pairs or lists than the kernel program may hold. */
export class PolicyTooLargeError extends RangeError {
  override readonly name = 'PolicyTooLargeError';

  constructor(
    readonly limit: keyof typeof CLASSIFY_LIMITS,
    readonly found: number,
  ) {
    super(`Cannot compile policy: it needs ${found} for ${limit}, the limit is ${CLASSIFY_LIMITS[limit]}`);
  }
}

/**
 * Policy as two class maps and a table of pairs. Source and destination classes count from 0; `listOf[s][d]` is the
 * index in `lists` of the rules, in order, that can match a connection from class s to class d. No two source
 * classes have equal rows and no two destination classes equal columns.
 */
export interface Classification {
  readonly sources: Readonly<Record<Family, readonly ClassInterval[]>>;
  readonly destinations: Readonly<Record<Family, readonly ClassInterval[]>>;
  readonly listOf: readonly (readonly number[])[];
  readonly lists: readonly (readonly RuleInForce[])[];
}

function sideGroups(policy: PolicyInForce, groups: GroupPrefixes, side: 'src' | 'dst'): SideGroup[] {
  const ruleIndexes = new Map<string, number[]>();
  for (const [index, { rule }] of policy.rules.entries()) {
    for (const name of new Set(rule[side])) {
      const indexes = ruleIndexes.get(name);
      if (indexes === undefined) ruleIndexes.set(name, [index]);
      else indexes.push(index);
    }
  }
  return [...ruleIndexes].map(([name, indexes]) => ({
    prefixes: groups.get(name) ?? [],
    ruleIndexes: indexes,
  }));
}

/** Whether nothing after this rule can be reached: it decides every protocol and port. */
function decidesAll({ enforced, rule }: RuleInForce): boolean {
  return enforced && rule.protocol === 'ANY' && rule.portRanges.length === 0;
}

/** Numbers distinct keys in the order in which they first appear. */
class Numbering {
  readonly #numbers = new Map<string, number>();

  of(key: string): number {
    const known = this.#numbers.get(key);
    if (known !== undefined) return known;
    this.#numbers.set(key, this.#numbers.size);
    return this.#numbers.size - 1;
  }

  get size(): number {
    return this.#numbers.size;
  }
}

/** The index at which each number first appears, for numbers given out by a Numbering. */
function firstOfEach(numbers: readonly number[]): number[] {
  const firsts: number[] = [];
  for (const [index, number] of numbers.entries()) if (number === firsts.length) firsts.push(index);
  return firsts;
}

function renumber(
  intervals: Partition['intervals'],
  numbers: readonly number[],
): Record<Family, readonly ClassInterval[]> {
  const merged: Record<Family, ClassInterval[]> = { 4: [], 6: [] };
  for (const family of FAMILIES) {
    const into = merged[family];
    for (const interval of intervals[family]) {
      const classIndex = numbers[interval.classIndex]!;
      const previous = into.at(-1);
      if (previous?.classIndex === classIndex) into[into.length - 1] = { ...previous, last: interval.last };
      else into.push({ ...interval, classIndex });
    }
  }
  return merged;
}

function refuseOver(limit: keyof typeof CLASSIFY_LIMITS, found: number): void {
  if (found > CLASSIFY_LIMITS[limit]) throw new PolicyTooLargeError(limit, found);
}

/**
 * Turns policy and the prefixes of its groups into classes, pairs and lists. Throws PolicyTooLargeError.
 *
 * Cost: the partition of each side, plus one pass over all pairs of classes.
 */
export function classify(
  policy: PolicyInForce,
  groups: GroupPrefixes,
  excluded: readonly Prefix[],
): Classification {
  const ruleCount = policy.rules.length;
  const sources = partition(sideGroups(policy, groups, 'src'), excluded, ruleCount);
  const destinations = partition(sideGroups(policy, groups, 'dst'), excluded, ruleCount);
  refuseOver('classesMax', Math.max(sources.classes.length, destinations.classes.length));
  refuseOver('pairsMax', sources.classes.length * destinations.classes.length);

  const listNumbers = new Numbering();
  const lists: RuleInForce[][] = [];
  let listRules = 0;
  const rows = sources.classes.map((source) =>
    destinations.classes.map((destination) => {
      const list: RuleInForce[] = [];
      for (const index of commonBits(source, destination)) {
        const rule = policy.rules[index]!;
        list.push(rule);
        if (decidesAll(rule)) break;
      }
      const number = listNumbers.of(list.map((rule) => rule.number).join());
      if (number === lists.length) {
        lists.push(list);
        listRules += list.length;
        refuseOver('listsMax', lists.length);
        refuseOver('listRulesMax', listRules);
      }
      return number;
    }),
  );
  const rowNumbers = new Numbering();
  const sourceNumbers = rows.map((row) => rowNumbers.of(row.join()));
  const distinctRows = firstOfEach(sourceNumbers).map((index) => rows[index]!);
  const columnNumbers = new Numbering();
  const destinationNumbers = destinations.classes.map((_, column) =>
    columnNumbers.of(distinctRows.map((row) => row[column]).join()),
  );
  const distinctColumns = firstOfEach(destinationNumbers);
  return {
    sources: renumber(sources.intervals, sourceNumbers),
    destinations: renumber(destinations.intervals, destinationNumbers),
    listOf: distinctRows.map((row) => distinctColumns.map((column) => row[column]!)),
    lists,
  };
}
