import type { Additions, MapEdit, NftMap } from '../nft/program.js';
import type { TopMaps } from './fixed-chains.js';

/** What policy makes of a program, whatever the generation. */
export interface CompiledPolicy extends Omit<Additions, 'prepared'> {
  /** Undefined: everything is dropped. */
  readonly top: TopMaps | undefined;
}

type Elements<M = NftMap> = M extends NftMap ? M['elements'] : never;

/** What a program is made of while it is changed in place: content comes, and goes with the next compilation of all. */
export class ProgramContent {
  #compiled: CompiledPolicy;
  readonly #chains: Set<string>;
  readonly #maps: Map<string, number>;
  readonly #counters: Set<string>;
  readonly #limits: Set<string>;
  /** Keys of the maps that grow, by their names. */
  readonly #keys = new Map<string, Set<bigint>>();

  constructor(compiled: CompiledPolicy) {
    this.#compiled = compiled;
    this.#chains = new Set(compiled.chains.map(({ name }) => name));
    this.#maps = new Map(compiled.maps.map(({ name }, index) => [name, index]));
    this.#counters = new Set(compiled.counters);
    this.#limits = new Set(compiled.limits.map(({ name }) => name));
  }

  get compiled(): CompiledPolicy {
    return this.#compiled;
  }

  hasMap(name: string): boolean {
    return this.#maps.has(name);
  }

  /** Adds what is not there yet, and gives just that. Of a map that grows the elements are those that are to be there. */
  add({ chains, maps, counters, limits, prepared }: Additions): Additions {
    const { top, ...before } = this.#compiled;
    const held = [...before.maps];
    const added = {
      chains: chains.filter(({ name }) => isNew(this.#chains, name)),
      maps: maps.flatMap((map) => this.#addMap(held, map) ?? []),
      counters: counters.filter((name) => isNew(this.#counters, name)),
      limits: limits.filter(({ name }) => isNew(this.#limits, name)),
      prepared,
    };
    this.#compiled = {
      top,
      chains: [...before.chains, ...added.chains],
      maps: held,
      counters: [...before.counters, ...added.counters],
      limits: [...before.limits, ...added.limits],
    };
    this.edit(prepared);
    return added;
  }

  /** Takes what edits make of maps. */
  edit(edits: readonly MapEdit[]): void {
    const maps = [...this.#compiled.maps];
    for (const { map } of edits) maps[this.#maps.get(map.name)!] = map;
    this.#compiled = { ...this.#compiled, maps };
  }

  /** What of the map is not there yet; undefined where nothing is. */
  #addMap(held: NftMap[], map: NftMap): NftMap | undefined {
    const index = this.#maps.get(map.name);
    if (index === undefined) {
      this.#maps.set(map.name, held.push(map) - 1);
      return map;
    }
    if (!('grows' in map)) return undefined;
    let keys = this.#keys.get(map.name);
    if (keys === undefined) {
      const { elements } = held[index]! as typeof map;
      keys = new Set(elements.map(({ first }) => first));
      this.#keys.set(map.name, keys);
    }
    const elements = map.elements.filter(({ first }) => isNew(keys, first));
    if (elements.length === 0) return undefined;
    held[index] = withElements(map, [...held[index]!.elements, ...elements] as Elements);
    return withElements(map, elements as Elements);
  }
}

const withElements = (map: NftMap, elements: Elements) => ({ ...map, elements }) as NftMap;

function isNew<T>(known: Set<T>, one: T): boolean {
  if (known.has(one)) return false;
  known.add(one);
  return true;
}
