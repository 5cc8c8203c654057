import { FAMILIES, type Family } from '../net/family.js';
import { type Block, compareWords, halvesOf, lastOf, WORDS, type Words, wholeSpace } from '../net/words.js';
import { Members } from './members.js';
import { NumberSets } from './number-sets.js';
import { Runs } from './prefix-tree.js';

/** A shard is cut in two when it has more stretches. The kernel's cost of a change is linear in the map it touches. */
export const SHARD_INTERVALS_MAX = 2_048;
/** Up to which one that is there may grow: to cut it in two is no change in place. */
export const SHARD_GROWN_INTERVALS_MAX = 2 * SHARD_INTERVALS_MAX;

/** The group number of the gateway's own addresses, which are members of nothing. */
export const OWN_ADDRESSES = 0;

/** One aligned block of addresses with its stretches: each from its start to the next, all of one atom. */
export interface Shard {
  readonly family: Family;
  readonly block: Block;
  readonly last: Words;
  readonly starts: Uint32Array;
  readonly atoms: Uint32Array;
}

/** A shard that was cut anew, and what came out: it has other stretches, or too many for one. */
export interface ShardChange {
  readonly before: Shard;
  readonly after: readonly Shard[];
}

/** The index of the first start above `words`. */
function upperBound(starts: Uint32Array, width: number, length: number, words: Words): number {
  let low = 0;
  let high = length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (compareWords(words, starts, middle * width) < 0) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** Cuts runs over a block into shards of at most SHARD_INTERVALS_MAX stretches, if they are more than `wholeMax`. */
function cut(family: Family, block: Block, runs: Runs, wholeMax: number): Shard[] {
  const intervalsMax = runs.length > wholeMax ? SHARD_INTERVALS_MAX : wholeMax;
  const width = WORDS[family];
  const shards: Shard[] = [];
  const take = (part: Block) => {
    const last = lastOf(part);
    // The stretch that the part begins in may have begun before it.
    const from = upperBound(runs.starts, width, runs.length, part.words) - 1;
    const to = upperBound(runs.starts, width, runs.length, last);
    if (to - from > intervalsMax) {
      for (const half of halvesOf(part)) take(half);
      return;
    }
    const starts = runs.starts.slice(from * width, to * width);
    starts.set(part.words);
    shards.push({ family, block: part, last, starts, atoms: runs.states.slice(from, to) });
  };
  take(block);
  return shards;
}

const sameStretches = (a: Shard, b: Shard) =>
  a.atoms.length === b.atoms.length &&
  Buffer.compare(Buffer.from(a.atoms.buffer), Buffer.from(b.atoms.buffer)) === 0 &&
  Buffer.compare(Buffer.from(a.starts.buffer), Buffer.from(b.starts.buffer)) === 0;

/**
 * One side of policy, source or destination: the whole address space cut into stretches of one atom each, in shards.
 * An atom is a set of groups that this side's rules name; every address is in exactly one.
 */
export class Side {
  readonly members = new Members();
  /** Sets of group numbers. Atom 0 is of no group. */
  readonly atoms = new NumberSets();
  #shards: Record<Family, Shard[]> = { 4: [], 6: [] };
  /** Stretches of each atom. */
  readonly #counts: number[] = [];
  readonly #combined = new Map<number, number>();

  get shards(): readonly Shard[] {
    return [...this.#shards[4], ...this.#shards[6]];
  }

  /** The atoms that some address is in. */
  liveAtoms(): number[] {
    return [...this.#counts.keys()].filter((atom) => this.#counts[atom]! > 0);
  }

  readonly #combine = (atom: number, tag: number): number => {
    const step = atom * TAG_STEPS + tag;
    let combined = this.#combined.get(step);
    if (combined === undefined) {
      combined = this.#union(atom, tag);
      this.#combined.set(step, combined);
    }
    return combined;
  };

  #union(atom: number, tag: number): number {
    const outer = this.atoms.membersOf(atom);
    const added = this.members.tags.membersOf(tag);
    if (outer.includes(OWN_ADDRESSES) || added.includes(OWN_ADDRESSES))
      return this.atoms.idOf([OWN_ADDRESSES]);
    return this.atoms.idOf([...new Set([...outer, ...added])].sort((a, b) => a - b));
  }

  #sweep(family: Family, block: Block, wholeMax: number): Shard[] {
    const runs = new Runs(WORDS[family]);
    this.members.trees[family].sweep(block, 0, this.#combine, runs);
    return cut(family, block, runs, wholeMax);
  }

  #count(shard: Shard, by: 1 | -1): void {
    for (const atom of shard.atoms) this.#counts[atom] = (this.#counts[atom] ?? 0) + by;
  }

  /** Cuts the whole address space anew; shards that come out as they were are kept. */
  sweepAll(): void {
    this.#counts.length = 0;
    for (const family of FAMILIES) {
      const before = new Map(this.#shards[family].map((shard) => [shardKey(shard), shard]));
      this.#shards[family] = this.#sweep(family, wholeSpace(family), SHARD_INTERVALS_MAX).map((shard) => {
        const known = before.get(shardKey(shard));
        return known !== undefined && sameStretches(known, shard) ? known : shard;
      });
      for (const shard of this.#shards[family]) this.#count(shard, 1);
    }
  }

  /** Cuts the shards anew that hold some of these blocks. Gives what changed. Cost: the shards that are touched. */
  sweepBlocks(family: Family, blocks: readonly Block[]): ShardChange[] {
    const shards = this.#shards[family];
    const touched = new Set<number>();
    for (const block of blocks) {
      const to = this.#indexOf(shards, lastOf(block));
      for (let index = this.#indexOf(shards, block.words); index <= to; index++) touched.add(index);
    }
    const changes: ShardChange[] = [];
    for (const index of [...touched].sort((a, b) => b - a)) {
      const before = shards[index]!;
      const after = this.#sweep(family, before.block, SHARD_GROWN_INTERVALS_MAX);
      if (after.length === 1 && sameStretches(before, after[0]!)) continue;
      this.#count(before, -1);
      for (const shard of after) this.#count(shard, 1);
      shards.splice(index, 1, ...after);
      changes.push({ before, after });
    }
    return changes;
  }

  #indexOf(shards: readonly Shard[], words: Words): number {
    let low = 0;
    let high = shards.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (compareWords(words, shards[middle]!.block.words, 0) < 0) high = middle;
      else low = middle + 1;
    }
    return low - 1;
  }
}

const shardKey = ({ block }: Shard) => `${block.words.join()}/${block.length}`;

/** Tags are below this. */
const TAG_STEPS = 2 ** 26;
