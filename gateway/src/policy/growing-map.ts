import type { MapElement, ObjectMap, VerdictMap } from '../nft/program.js';
import { hash } from './rule-content.js';

export type GrowingKind = 'sources' | 'lists' | 'monitors' | 'decided' | 'log_limits' | 'suppressed';
export type GrowingData = 'verdict' | 'counter' | 'limit';

/** An element of one key. */
export const single = <Data>(key: number, data: Data): MapElement<Data> => ({
  first: BigInt(key),
  last: BigInt(key),
  data,
});

/** A map that keeps its name while elements come and go; where a key is to mean something else, another takes over. */
export class GrowingMap {
  readonly #kind: GrowingKind;
  readonly #epoch: string;
  #serial = 0;
  readonly #known = new Map<number, string>();

  constructor(kind: GrowingKind, epoch: string) {
    this.#kind = kind;
    this.#epoch = epoch;
  }

  /** `entries` are keys, and names of chains to jump to or of objects. */
  mapOf(data: GrowingData, entries: readonly (readonly [number, string])[]): VerdictMap | ObjectMap {
    if (entries.some(([key, name]) => (this.#known.get(key) ?? name) !== name)) {
      this.#serial++;
      this.#known.clear();
    }
    for (const [key, name] of entries) this.#known.set(key, name);
    const shape = {
      name: `${this.#kind}_${hash(`${this.#epoch} ${this.#serial}`)}`,
      key: this.#kind === 'sources' ? 'classid' : 'mark',
      interval: false,
      grows: true,
    } as const;
    if (data !== 'verdict')
      return { ...shape, data, elements: entries.map(([key, name]) => single(key, name)) };
    const elements = entries.map(([key, chain]) => single(key, { kind: 'jump', chain } as const));
    return { ...shape, data, elements };
  }
}
