import { type Diagnostic, PolicyError, type Position } from './diagnostics.js';

/** The text of one input file, able to say where an offset lies. */
export class SourceText {
  readonly file: string;
  readonly text: string;
  readonly #lineStarts: number[] = [0];

  constructor(file: string, text: string) {
    this.file = file;
    this.text = text;
    for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n', end + 1)) {
      this.#lineStarts.push(end + 1);
    }
  }

  /** The position of an offset, in O(log lines). */
  at(offset: number): Position {
    let low = 0;
    let high = this.#lineStarts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.#lineStarts[middle]! <= offset) low = middle;
      else high = middle - 1;
    }
    return { file: this.file, line: low + 1, column: offset - this.#lineStarts[low]! + 1 };
  }

  /** The error that ends the reading of a file whose syntax is broken. */
  fail(offset: number, message: string): PolicyError {
    const diagnostic: Diagnostic = { ...this.at(offset), message };
    return new PolicyError([diagnostic]);
  }
}
