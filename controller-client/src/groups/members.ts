import { FAMILIES, type Family } from 'sluice-gateway/net/family.js';
import {
  comparePrefixes,
  type Interval,
  type Prefix,
  prefixesOfInterval,
  prefixInterval,
  sortPrefixes,
} from 'sluice-gateway/net/prefix.js';

/** Why a prefix is in a group. */
export interface Member {
  readonly prefix: Prefix;
  /** ARN of a function, id of another resource, a name or feed, `cidr` or `system`. */
  readonly via: string;
  /** The subnet or network interface by which a function has it. */
  readonly by?: string;
  /** The group inside this one that brought it. */
  readonly group?: string;
  /** When its source was last seen, RFC 3339; absent where nothing was asked. */
  readonly seenAt?: string;
  /** Until when it counts while AWS does not show its source again. */
  readonly until?: Date;
}

const compareText = (a = '', b = '') => (a < b ? -1 : a > b ? 1 : 0);

/** By prefix, then by its reasons. */
export function compareMembers(a: Member, b: Member): number {
  return (
    comparePrefixes(a.prefix, b.prefix) ||
    compareText(a.via, b.via) ||
    compareText(a.by, b.by) ||
    compareText(a.group, b.group)
  );
}

/** Sorted; the same reason for the same prefix is kept once. */
export function sortMembers(members: readonly Member[]): Member[] {
  const sorted = members.toSorted(compareMembers);
  return sorted.filter((member, index) => index === 0 || compareMembers(sorted[index - 1]!, member) !== 0);
}

/** The fewest intervals that hold the same addresses, ascending in each family. */
function mergeIntervals(prefixes: Iterable<Prefix>): Readonly<Record<Family, Interval[]>> {
  const merged: Record<Family, Interval[]> = { 4: [], 6: [] };
  for (const prefix of sortPrefixes(prefixes)) {
    const next = prefixInterval(prefix);
    const list = merged[prefix.family];
    const last = list.at(-1);
    if (last === undefined || next.first > last.last + 1n) list.push(next);
    else if (next.last > last.last) list[list.length - 1] = { ...last, last: next.last };
  }
  return merged;
}

/** The fewest prefixes that hold the same addresses, sorted. */
export function mergePrefixes(prefixes: Iterable<Prefix>): Prefix[] {
  const merged = mergeIntervals(prefixes);
  return FAMILIES.flatMap((family) => merged[family].flatMap(prefixesOfInterval));
}

/** Addresses that are taken out of prefixes. */
export class Holes {
  readonly #intervals: Readonly<Record<Family, readonly Interval[]>>;

  constructor(prefixes: Iterable<Prefix>) {
    this.#intervals = mergeIntervals(prefixes);
  }

  /** What is left of a prefix, in the fewest prefixes. O(log holes + what it is cut into). */
  carve(prefix: Prefix): Prefix[] {
    const holes = this.#intervals[prefix.family];
    const { family, first, last } = prefixInterval(prefix);
    let low = 0;
    let high = holes.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (holes[middle]!.last < first) low = middle + 1;
      else high = middle;
    }
    if (low === holes.length || holes[low]!.first > last) return [prefix];
    const left: Prefix[] = [];
    let next = first;
    for (let hole = holes[low]; hole !== undefined && hole.first <= last; hole = holes[++low]) {
      if (hole.first > next) left.push(...prefixesOfInterval({ family, first: next, last: hole.first - 1n }));
      next = hole.last + 1n;
    }
    if (next <= last) left.push(...prefixesOfInterval({ family, first: next, last }));
    return left;
  }

  /** Members without these addresses; each part keeps its reason. */
  take(members: readonly Member[]): Member[] {
    return members.flatMap((member) => {
      const parts = this.carve(member.prefix);
      return parts[0] === member.prefix ? [member] : parts.map((prefix) => ({ ...member, prefix }));
    });
  }
}

/** When the first of these members expires, and what of their prefixes does not. */
export function expiryOf(
  members: readonly Member[],
): { readonly at: Date; readonly prefixes: readonly Prefix[] } | undefined {
  const times = members.flatMap(({ until }) => (until === undefined ? [] : [until.getTime()]));
  if (times.length === 0) return undefined;
  const lasting = members.filter(({ until }) => until === undefined);
  return { at: new Date(Math.min(...times)), prefixes: sortPrefixes(lasting.map(({ prefix }) => prefix)) };
}
