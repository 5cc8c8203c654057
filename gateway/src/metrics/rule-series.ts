import type { Action } from '../policy/model.js';
import { OTHER } from './labels.js';

/** What the kernel has counted for a rule since its counter was made. */
export interface RuleCount {
  readonly rule: string;
  readonly action: Action;
  readonly enforced: boolean;
  readonly count: number | bigint;
}

interface State extends Pick<RuleCount, 'action' | 'enforced'> {
  /** The kernel's count when it was last read. */
  seen: number;
  /** What its own series says: what was counted while it had one. */
  shown: number;
  isOwn: boolean;
}

/** A series moves only for one that counts more than so many times as much. */
const DISPLACED_BY = 2;

/**
 * Which rules have a series of their own, at most `rulesMax`, the busiest by their count; what the others decide is
 * counted as `other`. No series goes backwards: a rule that loses its place leaves what it had counted, and one that
 * gains a place begins with what it had counted under its own name before. So rates are right, and the sum of their
 * totals is not.
 */
export class RuleSeries {
  readonly #rulesMax: number;
  /** By name of the rule. */
  readonly #states = new Map<string, State>();
  readonly #others = new Map<
    string,
    { readonly action: Action; readonly enforced: boolean; count: number }
  >();
  #isFirst = true;

  constructor(rulesMax: number) {
    this.#rulesMax = rulesMax;
  }

  /**
   * Takes the counts of the rules in force, each once: what each decided since the last time, by its place in `rows`,
   * and the series. What was there before the first time is shown, and is no increase. Cost: linear in the rules.
   */
  update(rows: readonly RuleCount[]): {
    readonly increases: readonly number[];
    readonly series: readonly RuleCount[];
  } {
    const increases: number[] = [];
    const counted = rows.map((row) => {
      const count = Number(row.count);
      const state = this.#stateOf(row, count);
      // A lower count than before is a new counter.
      increases.push(count < state.seen ? count : count - state.seen);
      state.seen = count;
      return state;
    });
    this.#isFirst = false;
    if (this.#states.size > rows.length) this.#forget(rows);
    this.#givePlaces();
    const own: RuleCount[] = [];
    for (const [index, row] of rows.entries()) {
      const state = counted[index]!;
      if (state.isOwn) {
        state.shown += increases[index]!;
        own.push({ ...row, count: state.shown });
      } else this.#countOther(row, increases[index]!);
    }
    const others = [...this.#others.values()].map((other) => ({ rule: OTHER, ...other }));
    return { increases, series: [...own, ...others] };
  }

  #stateOf({ rule, action, enforced }: RuleCount, count: number): State {
    const known = this.#states.get(rule);
    if (known !== undefined && known.action === action && known.enforced === enforced) return known;
    const before = this.#isFirst ? count : 0;
    const state = { action, enforced, seen: before, shown: before, isOwn: false };
    this.#states.set(rule, state);
    return state;
  }

  #forget(rows: readonly RuleCount[]): void {
    const inForce = new Set(rows.map(({ rule }) => rule));
    for (const rule of this.#states.keys()) if (!inForce.has(rule)) this.#states.delete(rule);
  }

  #givePlaces(): void {
    const own: State[] = [];
    const waiting: State[] = [];
    for (const state of this.#states.values()) (state.isOwn ? own : waiting).push(state);
    const byCount = (a: State, b: State) => a.seen - b.seen;
    const free = this.#rulesMax - own.length;
    if (free > 0) {
      for (const state of waiting.sort(byCount).slice(-free)) state.isOwn = true;
      return;
    }
    const idle = own.sort(byCount);
    const leastSeen = idle[0]!.seen * DISPLACED_BY;
    const busy = waiting
      .filter(({ seen }) => seen > leastSeen)
      .sort(byCount)
      .reverse();
    for (const [index, busier] of busy.entries()) {
      const displaced = idle[index];
      if (displaced === undefined || busier.seen <= displaced.seen * DISPLACED_BY) return;
      [displaced.isOwn, busier.isOwn] = [false, true];
    }
  }

  #countOther({ action, enforced }: RuleCount, increase: number): void {
    const key = `${action} ${enforced}`;
    const other = this.#others.get(key) ?? { action, enforced, count: 0 };
    other.count += increase;
    this.#others.set(key, other);
  }
}
