import { OTHER } from './labels.js';

/**
 * Something for each group, made when it is first asked for; beyond `groupsMax` groups share one, `other`. A group
 * keeps what it has for as long as it is retained, and so does `other`: counts in it never go backwards.
 */
export class ByGroup<T> {
  readonly #groupsMax: number;
  readonly #make: () => T;
  readonly #groups = new Map<string, T>();

  constructor(groupsMax: number, make: () => T) {
    this.#groupsMax = groupsMax;
    this.#make = make;
  }

  of(group: string): T {
    const known = this.#groups.get(group);
    if (known !== undefined) return known;
    const isFull = this.#groups.size - Number(this.#groups.has(OTHER)) >= this.#groupsMax;
    if (isFull && group !== OTHER) return this.of(OTHER);
    const made = this.#make();
    this.#groups.set(group, made);
    return made;
  }

  /** Forgets groups that are gone. */
  retain(groups: ReadonlySet<string>): void {
    for (const group of this.#groups.keys()) {
      if (group !== OTHER && !groups.has(group)) this.#groups.delete(group);
    }
  }

  entries(): readonly (readonly [group: string, value: T])[] {
    return [...this.#groups];
  }
}
