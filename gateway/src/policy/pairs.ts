import type { RulePositions } from './classes.js';

/** Lists of rule positions that grow at the end: number 0 is the empty list. */
export class Lists {
  /** The list that was extended, and by which position. */
  readonly #parents: number[] = [0];
  readonly #positions: number[] = [0];
  /** What the rule at hand makes of each list; `#extendedBy` says whether it is of the rule at hand. */
  #extended = new Uint32Array(1024);
  #extendedBy = new Uint16Array(1024);

  /** The list with one more rule. Rules come in order: one position after the other. */
  extend(list: number, position: number): number {
    if (this.#extendedBy[list] === position + 1) return this.#extended[list]!;
    const extended = this.#parents.push(list) - 1;
    this.#positions.push(position);
    if (extended >= this.#extended.length) {
      const wider = new Uint32Array(this.#extended.length * 2);
      wider.set(this.#extended);
      this.#extended = wider;
      const by = new Uint16Array(wider.length);
      by.set(this.#extendedBy);
      this.#extendedBy = by;
    }
    this.#extended[list] = extended;
    this.#extendedBy[list] = position + 1;
    return extended;
  }

  /** Lists so far: their numbers are below. */
  get size(): number {
    return this.#parents.length;
  }

  positionsOf(list: number): number[] {
    const positions: number[] = [];
    for (let at = list; at !== 0; at = this.#parents[at]!) positions.push(this.#positions[at]!);
    return positions.reverse();
  }
}

/** For each pair of a source and a destination class, the list of the rules that can match it, in order. */
export interface Pairs {
  readonly lists: Lists;
  /** List of source class s and destination class d at `s * destinations + d`. */
  readonly listOf: Uint32Array;
}

/**
 * Finds the list of each pair of classes. `endsList` says of a rule that none behind it can be reached.
 *
 * Cost: for each rule the source classes that have it times the destination classes that do.
 */
export function pairLists(
  sources: readonly RulePositions[],
  destinations: readonly RulePositions[],
  endsList: readonly boolean[],
): Pairs {
  const lists = new Lists();
  const listOf = new Uint32Array(sources.length * destinations.length);
  const isEnded = new Uint8Array(listOf.length);
  const havers = (classes: readonly RulePositions[]) => {
    const having: number[][] = endsList.map(() => []);
    for (const [index, rules] of classes.entries()) for (const rule of rules) having[rule]!.push(index);
    return having;
  };
  const fromSources = havers(sources);
  const toDestinations = havers(destinations);
  for (const [position, ends] of endsList.entries()) {
    for (const source of fromSources[position]!) {
      const row = source * destinations.length;
      for (const destination of toDestinations[position]!) {
        const pair = row + destination;
        if (isEnded[pair] === 1) continue;
        listOf[pair] = lists.extend(listOf[pair]!, position);
        if (ends) isEnded[pair] = 1;
      }
    }
  }
  return { lists, listOf };
}
