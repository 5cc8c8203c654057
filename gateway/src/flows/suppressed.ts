/** Decisions of each rule that the kernel counted but its rate limit kept from the log. */
export class SuppressedCounts {
  readonly #rules = new Map<string, { cumulative: bigint; pending: bigint }>();

  /**
   * Takes the kernel's counts, each since its counter was made, by rule name; a lower count than before is a
   * new counter. Rules that are no longer there are forgotten, and what was still to be told of them is
   * returned.
   */
  update(counts: ReadonlyMap<string, bigint>): readonly (readonly [name: string, count: number])[] {
    for (const [name, cumulative] of counts) {
      const known = this.#rules.get(name) ?? { cumulative: 0n, pending: 0n };
      const since = cumulative < known.cumulative ? cumulative : cumulative - known.cumulative;
      this.#rules.set(name, { cumulative, pending: known.pending + since });
    }
    const gone = [...this.#rules.keys()].filter((name) => !counts.has(name));
    const untold = gone.map((name) => [name, this.take(name)] as const).filter(([, count]) => count > 0);
    for (const name of gone) this.#rules.delete(name);
    return untold;
  }

  /** What the next record of a rule has to tell: decisions not logged since the last call for that rule. */
  take(name: string): number {
    const known = this.#rules.get(name);
    if (known === undefined) return 0;
    const { pending } = known;
    known.pending = 0n;
    return Number(pending);
  }

  /** `take` of every rule that has something to tell. */
  takeAll(): readonly (readonly [name: string, count: number])[] {
    return [...this.#rules.keys()]
      .map((name) => [name, this.take(name)] as const)
      .filter(([, count]) => count > 0);
  }
}
