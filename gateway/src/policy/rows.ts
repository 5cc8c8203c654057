import { Intervals } from '../nft/intervals.js';
import { KIND, NUMBER_MAX } from '../nft/mark.js';
import type { Chain, IntervalMap } from '../nft/program.js';
import type { RulePositions } from './classes.js';
import { pairLists } from './pairs.js';
import { hash, type ListContent } from './rule-content.js';

/** Source class by source class: the chain that turns a destination class in the mark into a list. */
export interface Row {
  readonly source: number;
  readonly chain: Chain;
  readonly map: IntervalMap;
}

export interface Rows {
  readonly rows: readonly Row[];
  readonly lists: ReadonlySet<ListContent>;
}

type NumberedClasses = readonly (readonly [number: number, rules: RulePositions])[];

interface KnownRow {
  readonly listNumbers: Uint32Array;
  readonly destinations: Uint32Array;
  readonly row: Row;
}

const sameNumbers = (a: Uint32Array, b: Uint32Array) =>
  a.length === b.length && a.every((number, index) => number === b[index]);

/** Makes rows, and keeps those that come out as they were. */
export class RowBook {
  readonly #epoch: string;
  #known = new Map<number, KnownRow>();

  constructor(epoch: string) {
    this.#epoch = epoch;
  }

  /** `contentOf` gives the content of a list of rule positions. */
  make(
    sources: NumberedClasses,
    destinations: NumberedClasses,
    endsList: readonly boolean[],
    contentOf: (positions: readonly number[]) => ListContent,
  ): Rows {
    const { lists, listOf } = pairLists(
      sources.map(([, rules]) => rules),
      destinations.map(([, rules]) => rules),
      endsList,
    );
    const contents = new Map<number, ListContent>();
    const numberOf = new Uint32Array(lists.size);
    for (const list of listOf) {
      if (numberOf[list] !== 0) continue;
      const content = contentOf(lists.positionsOf(list));
      contents.set(list, content);
      numberOf[list] = KIND.list | content.number;
    }
    const destinationNumbers = Uint32Array.from(destinations, ([number]) => number);
    const known = new Map<number, KnownRow>();
    const rows = sources.map(([source], index) => {
      const first = index * destinations.length;
      const listNumbers = listOf.subarray(first, first + destinations.length).map((list) => numberOf[list]!);
      const row = this.#row(source, listNumbers, destinationNumbers);
      known.set(source, { listNumbers, destinations: destinationNumbers, row });
      return row;
    });
    this.#known = known;
    return { rows, lists: new Set(contents.values()) };
  }

  /** The map of a row covers all numbers that a class can have. */
  #row(source: number, listNumbers: Uint32Array, destinations: Uint32Array): Row {
    const before = this.#known.get(source);
    if (
      before !== undefined &&
      sameNumbers(before.listNumbers, listNumbers) &&
      sameNumbers(before.destinations, destinations)
    ) {
      return before.row;
    }
    const starts: number[] = [];
    const data: number[] = [];
    for (const [index, number] of listNumbers.entries()) {
      if (number === data.at(-1)) continue;
      // The first interval begins where numbers do, each other with its first class.
      starts.push(KIND.destination + (index === 0 ? 0 : destinations[index]!));
      data.push(number);
    }
    const last = Uint32Array.of(KIND.destination + NUMBER_MAX);
    const elements = new Intervals(Uint32Array.from(starts), Uint32Array.from(data), last);
    const id = hash(`${this.#epoch} ${starts.join()} ${data.join()}`);
    const map: IntervalMap = { name: `to_${id}`, key: 'mark', data: 'mark', interval: true, elements };
    const chain: Chain = {
      name: `from_${id}`,
      rules: [[{ kind: 'setMarkFromMarkIntervals', map: map.name }]],
    };
    return { source, map, chain };
  }
}
