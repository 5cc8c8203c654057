import type { Family } from '../net/family.js';
import { comparePrefixes, type Prefix } from '../net/prefix.js';
import { type Block, blockOf } from '../net/words.js';
import { NumberSets } from './number-sets.js';
import { PrefixTree } from './prefix-tree.js';

/**
 * Prefixes of each group by name, in parts: ascending and distinct over all parts of a group. A part that is the same
 * array as before is not looked at again. A group that is not there has no members.
 */
export type GroupParts = ReadonlyMap<string, readonly (readonly Prefix[])[]>;

/** What became of a group's prefixes. */
export interface MembersChange {
  readonly added: readonly Prefix[];
  readonly removed: readonly Prefix[];
}

const NO_CHANGE: MembersChange = { added: [], removed: [] };

/** What two ascending lists don't have in common. */
function differ(before: readonly Prefix[], after: readonly Prefix[]): MembersChange {
  const added: Prefix[] = [];
  const removed: Prefix[] = [];
  let at = 0;
  for (const prefix of after) {
    while (at < before.length && comparePrefixes(before[at]!, prefix) < 0) removed.push(before[at++]!);
    if (at < before.length && comparePrefixes(before[at]!, prefix) === 0) at++;
    else added.push(prefix);
  }
  while (at < before.length) removed.push(before[at++]!);
  return { added, removed };
}

/** Which groups hold which prefixes: a tree a family, whose tags are sets of group numbers. */
export class Members {
  readonly trees: Readonly<Record<Family, PrefixTree>> = { 4: new PrefixTree(4), 6: new PrefixTree(6) };
  readonly tags = new NumberSets();
  readonly #parts = new Map<number, readonly (readonly Prefix[])[]>();

  /** Gives a group these prefixes instead of those it had. Cost: the parts that are not the same arrays as before. */
  set(group: number, parts: readonly (readonly Prefix[])[]): MembersChange {
    const before = this.#parts.get(group) ?? [];
    this.#parts.set(group, parts);
    const isSame = before.length === parts.length && before.every((part, index) => part === parts[index]);
    if (isSame) return NO_CHANGE;
    const kept = new Set(before);
    const now = new Set(parts);
    const change = differ(
      before.filter((part) => !now.has(part)).flat(),
      parts.filter((part) => !kept.has(part)).flat(),
    );
    for (const prefix of change.removed) {
      this.trees[prefix.family].update(blockOf(prefix), (tag) => this.tags.without(tag, group));
    }
    for (const prefix of change.added) {
      this.trees[prefix.family].update(blockOf(prefix), (tag) => this.tags.with(tag, group));
    }
    return change;
  }
}

/** The blocks that changes touch, by family. */
export function touchedBlocks(changes: readonly MembersChange[]): Readonly<Record<Family, readonly Block[]>> {
  const blocks: Record<Family, Block[]> = { 4: [], 6: [] };
  for (const { added, removed } of changes) {
    for (const prefix of [...added, ...removed]) blocks[prefix.family].push(blockOf(prefix));
  }
  return blocks;
}
