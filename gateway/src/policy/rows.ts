import { Intervals } from '../nft/intervals.js';
import { KIND, NUMBER_MAX } from '../nft/mark.js';
import type { Chain, IntervalMap, MapEdit } from '../nft/program.js';
import type { RulePositions } from './classes.js';
import { pairLists } from './pairs.js';
import { hash, type ListContent } from './rule-content.js';

/** Source class by source class: the chain that turns a destination class in the mark into a list. */
export interface Row {
  readonly source: number;
  readonly chain: Chain;
  readonly map: IntervalMap;
}

/** Classes by number, ascending, with their rules. */
export type NumberedClasses = readonly (readonly [number: number, rules: RulePositions])[];

/** For source s and destination d the number of their list, as in the mark, at `s * destinations + d`. */
export interface PairNumbers {
  readonly sources: NumberedClasses;
  readonly destinations: NumberedClasses;
  readonly numbers: Uint32Array;
  readonly lists: ReadonlySet<ListContent>;
}

/** Finds the list of each pair of these classes. `contentOf` gives the content of a list of rule positions. */
export function numberPairs(
  sources: NumberedClasses,
  destinations: NumberedClasses,
  endsList: readonly boolean[],
  contentOf: (positions: readonly number[]) => ListContent,
): PairNumbers {
  const { lists, listOf } = pairLists(
    sources.map(([, rules]) => rules),
    destinations.map(([, rules]) => rules),
    endsList,
  );
  const contents = new Map<number, ListContent>();
  const numberOf = new Uint32Array(lists.size);
  const numbers = listOf.map((list) => {
    if (numberOf[list] === 0) {
      const content = contentOf(lists.positionsOf(list));
      contents.set(list, content);
      numberOf[list] = KIND.list | content.number;
    }
    return numberOf[list]!;
  });
  return { sources, destinations, numbers, lists: new Set(contents.values()) };
}

interface KnownRow {
  /** By index of the destination class. */
  readonly numbers: Uint32Array;
  readonly row: Row;
}

function joined(a: Uint32Array, b: readonly number[]): Uint32Array {
  const both = new Uint32Array(a.length + b.length);
  both.set(a);
  both.set(b, a.length);
  return both;
}

/** The rows of the program in force, under names that they keep while they are what they were or are edited in place. */
export class RowBook {
  readonly #epoch: string;
  /** Numbers of the destination classes, ascending. */
  #destinations: Uint32Array = new Uint32Array();
  #known = new Map<number, KnownRow>();
  #count = 0;

  constructor(epoch: string) {
    this.#epoch = epoch;
  }

  /** The rows of all pairs. Those that come out as they were are kept, others have new names. */
  make({ sources, destinations, numbers }: PairNumbers): readonly Row[] {
    this.#destinations = Uint32Array.from(destinations, ([number]) => number);
    const known = new Map<number, KnownRow>();
    const rows = sources.map(([source], index) => {
      const first = index * destinations.length;
      const ofSource = numbers.slice(first, first + destinations.length);
      const elements = this.#intervalsOf(ofSource);
      const before = this.#known.get(source)?.row;
      const row = before?.map.elements.equals(elements) ? before : this.#newRow(source, elements);
      known.set(source, { numbers: ofSource, row });
      return row;
    });
    this.#known = known;
    return rows;
  }

  /**
   * Takes these pairs instead of what was there of them: rows of sources that are new, which name all destinations, and
   * edits of others. Destinations that are new are above all others, and name all sources.
   */
  update({ sources, destinations, numbers }: PairNumbers): {
    readonly added: readonly Row[];
    readonly edits: readonly MapEdit[];
  } {
    const last = this.#destinations.at(-1) ?? 0;
    const more = destinations.map(([number]) => number).filter((number) => number > last);
    this.#destinations = joined(this.#destinations, more);
    const indexes = new Map([...this.#destinations].map((number, index) => [number, index]));
    const columns = destinations.map(([number]) => indexes.get(number)!);
    const added: Row[] = [];
    const edits: MapEdit[] = [];
    for (const [index, [source]] of sources.entries()) {
      const before = this.#known.get(source);
      const ofSource = new Uint32Array(this.#destinations.length);
      if (before !== undefined) ofSource.set(before.numbers);
      for (const [at, column] of columns.entries()) {
        ofSource[column] = numbers[index * destinations.length + at]!;
      }
      if (before !== undefined && more.length === destinations.length) {
        const edit = this.#extend(before, ofSource);
        if (edit !== undefined) edits.push(edit);
        const row = edit === undefined ? before.row : { ...before.row, map: edit.map };
        this.#known.set(source, { numbers: ofSource, row });
        continue;
      }
      const elements = this.#intervalsOf(ofSource);
      if (before === undefined) {
        const row = this.#newRow(source, elements);
        added.push(row);
        this.#known.set(source, { numbers: ofSource, row });
        continue;
      }
      const changes = before.row.map.elements.changesTo(elements);
      const map: IntervalMap = { ...before.row.map, elements };
      if (changes.remove.length + changes.add.length > 0) edits.push({ map, ...changes });
      this.#known.set(source, { numbers: ofSource, row: { ...before.row, map } });
    }
    return { added, edits };
  }

  /** Of destinations that come behind all others; undefined where they have the list of the last one. */
  #extend({ numbers: before, row }: KnownRow, numbers: Uint32Array): MapEdit | undefined {
    const { starts, data, last } = row.map.elements;
    const [moreStarts, moreData]: [number[], number[]] = [[], []];
    for (let index = before.length; index < numbers.length; index++) {
      if (numbers[index] === numbers[index - 1]) continue;
      moreStarts.push(KIND.destination + this.#destinations[index]!);
      moreData.push(numbers[index]!);
    }
    if (moreData.length === 0) return undefined;
    const elements = new Intervals(joined(starts, moreStarts), joined(data, moreData), last);
    const add = Array.from({ length: 1 + moreData.length }, (_, at) => elements.at(data.length - 1 + at));
    return { map: { ...row.map, elements }, remove: [row.map.elements.at(data.length - 1)], add };
  }

  #newRow(source: number, elements: Intervals): Row {
    const id = hash(`${this.#epoch} row ${this.#count++}`);
    const map: IntervalMap = { name: `to_${id}`, key: 'mark', data: 'mark', interval: true, elements };
    const chain: Chain = {
      name: `from_${id}`,
      rules: [[{ kind: 'setMarkFromMarkIntervals', map: map.name }]],
    };
    return { source, map, chain };
  }

  /** The map of a row covers all numbers that a class can have. */
  #intervalsOf(numbers: Uint32Array): Intervals {
    const starts: number[] = [];
    const data: number[] = [];
    for (const [index, number] of numbers.entries()) {
      if (number === data.at(-1)) continue;
      // The first interval begins where numbers do, each other with its first class.
      starts.push(KIND.destination + (index === 0 ? 0 : this.#destinations[index]!));
      data.push(number);
    }
    const last = Uint32Array.of(KIND.destination + NUMBER_MAX);
    return new Intervals(Uint32Array.from(starts), Uint32Array.from(data), last);
  }
}
