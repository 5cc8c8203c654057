import { printable } from '../text.js';

/** Further values of a label appear under this one. */
export const OTHER = 'other';

/** More than a snapshot may have groups. */
export const LABEL_VALUES_MAX = 1_024;

/** Rules with series of their own: so many that no turn of a scrape takes longer than 20 ms. */
export const RULE_SERIES_MAX = 2_000;

/**
 * The values of one label, at most `labelValuesMax` by themselves and the rest as `other`. A value keeps its
 * place as long as it is in use, so that a series doesn't move between its name and `other`.
 */
export class LabelValues {
  readonly #labelValuesMax: number;
  readonly #own = new Set<string>();
  readonly #folded = new Set<string>();

  constructor(labelValuesMax: number) {
    this.#labelValuesMax = labelValuesMax;
  }

  /** The text to expose for a value; names are text of strangers and come without control characters. */
  label(value: string): string {
    if (this.#own.has(value)) return printable(value);
    if (this.#folded.has(value)) return OTHER;
    if (this.#own.size < this.#labelValuesMax) {
      this.#own.add(value);
      return printable(value);
    }
    // Bounded as well; a value that finds no place in either is `other` all the same.
    if (this.#folded.size < this.#labelValuesMax) this.#folded.add(value);
    return OTHER;
  }

  /** Frees the places of values that are not in use any more. */
  retain(inUse: ReadonlySet<string>): void {
    for (const values of [this.#own, this.#folded]) {
      for (const value of values) if (!inUse.has(value)) values.delete(value);
    }
  }
}
