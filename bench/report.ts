import type { Report, Spread } from './harness.js';

/** What `--json FILE` holds: the medians, between which bounds they are, and the samples that they are of. */
export interface BenchResult {
  readonly name: string;
  readonly figures: Readonly<Record<string, number>>;
  readonly intervals: Readonly<Record<string, readonly [low: number, high: number]>>;
  readonly samples: Readonly<Record<string, readonly number[]>>;
}

interface Output {
  readonly isTTY?: boolean;
  write(text: string): unknown;
}

const ERASE_LINE = '\r\u001b[K';

/** Prints tables and notes to `out`, progress to `err` if that is a terminal, and gathers the figures. */
export class ConsoleReport implements Report {
  readonly #name: string;
  readonly #out: Output;
  readonly #err: Output;
  readonly #figures: Record<string, number> = {};
  readonly #intervals: Record<string, readonly [number, number]> = {};
  readonly #samples: Record<string, readonly number[]> = {};

  constructor(name: string, out: Output, err: Output) {
    this.#name = name;
    this.#out = out;
    this.#err = err;
  }

  progress(text: string): void {
    if (this.#err.isTTY === true) this.#err.write(`${ERASE_LINE}${text}`);
  }

  table(title: string, columns: readonly string[], rows: readonly (readonly string[])[]): void {
    const lines = [columns, ...rows];
    const widths = columns.map((_, column) => Math.max(...lines.map((line) => (line[column] ?? '').length)));
    const pad = (cell: string, column: number) =>
      column === 0 ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!);
    this.note(['', title, ...lines.map((line) => `  ${line.map(pad).join('  ')}`)].join('\n'));
  }

  note(text: string): void {
    this.progress('');
    this.#out.write(`${text}\n`);
  }

  figure(name: string, value: number | Spread): void {
    if (name in this.#figures) throw new Error(`Cannot report figure: "${name}" is given twice`);
    this.#figures[name] = typeof value === 'number' ? value : value.median;
    if (typeof value === 'number') return;
    this.#intervals[name] = [value.low, value.high];
    this.#samples[name] = value.samples;
  }

  /** All that was gathered so far. */
  result(): BenchResult {
    const [name, figures] = [this.#name, this.#figures];
    return { name, figures, intervals: this.#intervals, samples: this.#samples };
  }
}
