/** Something that is raced against others at the same job. */
export interface Contestant {
  readonly name: string;
  /** Does a piece of the job and returns how many units that was; called again until the turn is over. */
  readonly work: () => number | Promise<number>;
}

/**
 * Of the samples of one figure: the one in the middle, and how far they spread. Five samples hold the true median
 * between `low` and `high` with 94 % (1 - 2 / 2^5), seven with 98 %, whatever their distribution.
 */
export interface Spread {
  readonly median: number;
  readonly low: number;
  readonly high: number;
  readonly samples: readonly number[];
}

export interface RaceOptions {
  /** Every contestant has one turn a round; the first round warms up and does not count. */
  readonly rounds: number;
  readonly turnMs: number;
}

/** What a benchmark reports while it runs, and in the end. */
export interface Report {
  /** A line about what is being done now: on a terminal only, overwritten by the next. */
  progress(text: string): void;
  /** A table for people. */
  table(title: string, columns: readonly string[], rows: readonly (readonly string[])[]): void;
  /** A sentence for people, such as why a contestant is missing. */
  note(text: string): void;
  /** A number for machines: its name says what it is and its unit. A spread counts with its median. */
  figure(name: string, value: number | Spread): void;
}

/** What the caller may choose. */
export interface BenchOptions {
  /** How large the data are, where a benchmark has one size; what it counts, the benchmark's text says. */
  readonly size?: number;
}

/** One question, answered by measuring. */
export interface Bench {
  readonly question: string;
  readonly run: (report: Report, options: BenchOptions) => Promise<void>;
}

/** The spread of at least one sample. */
export function spreadOf(samples: readonly number[]): Spread {
  const sorted = samples.toSorted((a, b) => a - b);
  const [low, high] = [sorted[0], sorted.at(-1)];
  if (low === undefined || high === undefined)
    throw new RangeError('Cannot compute spread: there are no samples');
  const middle = sorted.length / 2;
  const median = (sorted[Math.ceil(middle) - 1]! + sorted[Math.floor(middle)]!) / 2;
  return { median, low, high, samples };
}

/** How many times a contestant is as fast as another one, round by round: what slowed one slowed both. */
export function ratioOf(rates: Spread, baseline: Spread): Spread {
  return spreadOf(rates.samples.map((rate, round) => rate / baseline.samples[round]!));
}

/** Runs a job once and returns its result and the seconds that it took. */
export async function timed<Result>(
  job: () => Result,
): Promise<{ readonly result: Awaited<Result>; readonly seconds: number }> {
  const start = performance.now();
  const result = await job();
  return { result, seconds: (performance.now() - start) / 1000 };
}

async function turn(contestant: Contestant, turnMs: number): Promise<number> {
  const start = performance.now();
  let units = 0;
  let now = start;
  while (now - start < turnMs) {
    units += await contestant.work();
    now = performance.now();
  }
  return (units * 1000) / (now - start);
}

/**
 * Lets the contestants take turns, so that what slows the machine for a while slows all of them. Resolves to
 * units a second of each, in their order. Check that they agree before you race them.
 */
export async function race(
  contestants: readonly Contestant[],
  options: RaceOptions,
): Promise<readonly Spread[]> {
  const samples = contestants.map((): number[] => []);
  for (let round = 0; round <= options.rounds; round++) {
    for (const [index, contestant] of contestants.entries()) {
      const rate = await turn(contestant, round === 0 ? options.turnMs / 4 : options.turnMs);
      if (round > 0) samples[index]!.push(rate);
    }
  }
  return samples.map(spreadOf);
}

/** A number for people: three digits, then thousands or millions. */
export function short(value: number): string {
  const [unit, scale] = value >= 1e6 ? ['M', 1e6] : value >= 1e3 ? ['k', 1e3] : ['', 1];
  const scaled = value / scale;
  return `${scaled.toFixed(scaled >= 100 ? 0 : scaled >= 10 ? 1 : 2)}${unit}`;
}

/** A spread for people: the median, then the lowest and the highest sample. */
export function shortSpread({ median, low, high }: Spread): string {
  return `${short(median)} (${short(low)}–${short(high)})`;
}
