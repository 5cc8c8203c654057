import { GENERATION_MAX } from './nft/mark.js';

/**
 * Gives out generations. A value comes again only when a look at conntrack has proved that no connection carries
 * it: one that did would pass as judged under the new policy.
 */
export class Generations {
  readonly #inUse: () => Promise<ReadonlySet<number>>;
  #avoid: ReadonlySet<number> | undefined;
  #last: number;

  /** `last` is the generation in force, if any; `inUse` gives the generations that connections carry now. */
  constructor(last: number | undefined, inUse: () => Promise<ReadonlySet<number>>) {
    this.#last = last ?? 0;
    this.#inUse = inUse;
  }

  /** With the one in force: until the switch connections go on to be marked with it, after the look too. */
  async #look(inForce: number): Promise<ReadonlySet<number>> {
    return new Set(await this.#inUse()).add(inForce);
  }

  /** The next generation, from 1 to GENERATION_MAX. Cost: a dump of conntrack at the first call and at wrap-around. */
  async next(): Promise<number> {
    const inForce = this.#last;
    this.#avoid ??= await this.#look(inForce);
    let candidate = inForce;
    // Twice around: the look at wrap-around may find free what was passed over before it.
    for (let tries = 0; tries < 2 * GENERATION_MAX; tries++) {
      candidate++;
      if (candidate > GENERATION_MAX) {
        candidate = 1;
        this.#avoid = await this.#look(inForce);
      }
      if (!this.#avoid.has(candidate)) {
        this.#last = candidate;
        return candidate;
      }
    }
    throw new RangeError(
      `Cannot give out a generation: connections carry all ${GENERATION_MAX}, expected at least one to be free`,
    );
  }
}
