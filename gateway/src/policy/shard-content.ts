import type { Family } from '../net/family.js';
import { compareWords, valueOfWords, type Words } from '../net/words.js';
import { Intervals } from '../nft/intervals.js';
import { KIND } from '../nft/mark.js';
import type { Chain, IntervalMap, MapEdit, MapElement, NftMap, VerdictMap } from '../nft/program.js';
import type { Verdict } from '../nft/statement.js';
import { hash } from './rule-content.js';
import type { Shard } from './side.js';

export type SideName = 'src' | 'dst';
export const SIDES: readonly SideName[] = ['src', 'dst'];
const SIDE_TEXT: Readonly<Record<SideName, 'source' | 'destination'>> = { src: 'source', dst: 'destination' };

/** A shard in the kernel: its map, and the chain with the one rule that looks it up. */
interface ShardContent {
  readonly map: IntervalMap;
  readonly chain: Chain;
}

/** The classes of a shard's stretches. */
export type ClassesOf = (shard: Shard) => Uint32Array;

/** A shard that took another's place, with the classes of its stretches. */
export interface ShardSuccession {
  readonly before: Shard;
  readonly after: Shard;
  readonly classes: Uint32Array;
}

/** The maps of one side, from addresses to classes, under names that they keep while they are what they were. */
export class ShardBook {
  readonly #name: SideName;
  readonly #epoch: string;
  readonly #contents = new Map<Shard, ShardContent>();
  #count = 0;

  constructor(name: SideName, epoch: string) {
    this.#name = name;
    this.#epoch = epoch;
  }

  /** The map from addresses to the shards of a family, and all that it leads to. */
  dispatch(
    family: Family,
    shards: readonly Shard[],
    classesOf: ClassesOf,
  ): { readonly map: VerdictMap; readonly maps: readonly NftMap[]; readonly chains: readonly Chain[] } {
    const contents = shards.map((shard) => this.#contentOf(shard, classesOf(shard)));
    const elements = shards.map((shard, index): MapElement<Verdict> => {
      const chain = contents[index]!.chain.name;
      const data = { kind: 'jump', chain } as const;
      return { first: valueOfWords(shard.block.words), last: valueOfWords(shard.last), data };
    });
    const text = contents.map(({ chain }) => chain.name).join();
    const map: VerdictMap = {
      name: `${SIDE_TEXT[this.#name]}${family}_${hash(`${this.#epoch}\0${text}`)}`,
      key: family === 4 ? 'ipv4_addr' : 'ipv6_addr',
      interval: true,
      data: 'verdict',
      elements,
    };
    return {
      map,
      maps: [map, ...contents.map((content) => content.map)],
      chains: contents.map(({ chain }) => chain),
    };
  }

  /** Forgets all shards but these. */
  keep(shards: readonly Shard[]): void {
    const kept = new Set(shards);
    for (const shard of this.#contents.keys()) if (!kept.has(shard)) this.#contents.delete(shard);
  }

  /**
   * The edits that make maps in the kernel into those of other shards of the same blocks, which go on under their
   * names. Undefined, and nothing changed, where one can't be edited in place.
   */
  succeed(successions: readonly ShardSuccession[]): readonly MapEdit[] | undefined {
    const next: (readonly [ShardSuccession, ShardContent])[] = [];
    const edits: MapEdit[] = [];
    for (const succession of successions) {
      const { after, classes, before } = succession;
      const content = this.#contents.get(before)!;
      const elements = this.#intervalsOf(after, classes);
      const { remove, add } = content.map.elements.changesTo(elements);
      if ([...remove, ...add].some(reachesTop(after.family))) return undefined;
      const map: IntervalMap = { ...content.map, elements };
      if (remove.length + add.length > 0) edits.push({ map, remove, add });
      next.push([succession, { ...content, map }]);
    }
    for (const [{ before, after }, content] of next) {
      this.#contents.delete(before);
      this.#contents.set(after, content);
    }
    return edits;
  }

  #contentOf(shard: Shard, classes: Uint32Array): ShardContent {
    const elements = this.#intervalsOf(shard, classes);
    const known = this.#contents.get(shard);
    if (known?.map.elements.equals(elements)) return known;
    const kind = `${SIDE_TEXT[this.#name]}${shard.family}`;
    const id = `${hash(`${this.#epoch} ${kind} ${this.#count++}`)}`;
    const isSource = this.#name === 'src';
    const map: IntervalMap = {
      name: `${kind}_classes_${id}`,
      key: shard.family === 4 ? 'ipv4_addr' : 'ipv6_addr',
      data: isSource ? 'classid' : 'mark',
      interval: true,
      elements,
    };
    const chain: Chain = {
      name: `${kind}_shard_${id}`,
      rules: [
        [
          {
            kind: isSource ? 'setPriorityFromMap' : 'setMarkFromMap',
            field: `${isSource ? 'ctOriginalSource' : 'ctOriginalDestination'}${shard.family}`,
            map: map.name,
          },
        ],
      ],
    };
    const content = { map, chain };
    this.#contents.set(shard, content);
    return content;
  }

  /**
   * Neighbouring stretches of one class are one interval; but the last address of all has its own, so that others can be
   * changed in place. Source classes need no kind: they are in the priority.
   */
  #intervalsOf({ starts, last }: Shard, classes: Uint32Array): Intervals {
    const base = this.#name === 'src' ? 0 : KIND.destination;
    const words = last.length;
    const kept: number[] = [];
    for (let index = 0; index < classes.length; index++) {
      if (index === 0 || classes[index] !== classes[index - 1]) kept.push(index);
    }
    const splitsTop = isTop(last) && compareWords(last, starts, kept.at(-1)! * words) !== 0;
    const length = kept.length + (splitsTop ? 1 : 0);
    const packed = new Uint32Array(length * words);
    const data = new Uint32Array(length);
    for (const [to, from] of kept.entries()) {
      for (let word = 0; word < words; word++) packed[to * words + word] = starts[from * words + word]!;
      data[to] = base + classes[from]!;
    }
    if (splitsTop) {
      packed.set(last, kept.length * words);
      data[kept.length] = data[kept.length - 1]!;
    }
    return new Intervals(packed, data, last);
  }
}

const isTop = (last: Words) => last.every((word) => word === 0xffff_ffff);

/** An interval that ends with the address space has no end in the kernel: it is not changed in place. */
const reachesTop = (family: Family) => {
  const top = family === 4 ? 0xffffffffn : (1n << 128n) - 1n;
  return ({ last }: MapElement<number>) => last === top;
};
