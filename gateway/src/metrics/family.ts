import { Counter, Gauge, type Registry } from 'prom-client';
import { LabelValues } from './labels.js';

/**
 * Asked at every scrape. What it throws, or when it takes too long, is counted and its series are left out.
 */
export type Source<Row> = () => readonly Row[] | Promise<readonly Row[]>;

/** What all families of one registry share. */
export interface Families {
  readonly registry: Registry;
  readonly labelValuesMax: number;
  /** A source that takes longer has failed. */
  readonly sourceMs: number;
  readonly pulled: Pulled[];
}

/** A family whose values are asked for at scrape. */
export interface Pulled {
  readonly name: string;
  /** Takes away the series and asks the source: what brings them back. Rejects when the source failed. */
  ask(): Promise<() => void>;
}

interface Description<Label extends string> {
  readonly name: string;
  readonly help: string;
  readonly labels: readonly Label[];
}

type Labels<Label extends string> = Readonly<Record<Label, string>>;

/** The bounded values of each label of a family. */
class LabelSets<Label extends string> {
  readonly #sets: ReadonlyMap<Label, LabelValues>;

  constructor(labels: readonly Label[], labelValuesMax: number) {
    this.#sets = new Map(labels.map((label) => [label, new LabelValues(labelValuesMax)]));
  }

  fold(labels: Labels<Label>): Record<Label, string> {
    const entries = [...this.#sets].map(([label, values]) => [label, values.label(labels[label])]);
    return Object.fromEntries(entries) as Record<Label, string>;
  }

  retain(rows: readonly Labels<Label>[]): void {
    for (const [label, values] of this.#sets) values.retain(new Set(rows.map((row) => row[label])));
  }
}

/** The values of the one label that are known before anything is counted: a series that begins at 1 has no increase. */
type Known<Label extends string> = Description<Label> & { readonly known?: readonly string[] };

/** A counter that the gateway counts up itself. */
export function counter<Label extends string>(families: Families, description: Known<Label>) {
  const { name, help, labels, known = [] } = description;
  const family = new Counter({ name, help, labelNames: labels, registers: [families.registry] });
  const sets = new LabelSets(labels, families.labelValuesMax);
  const [label] = labels;
  for (const value of known) family.inc(sets.fold({ [label!]: value } as Labels<Label>), 0);
  return (values: Labels<Label>, count = 1) => family.inc(sets.fold(values), count);
}

/** A gauge that the gateway sets itself. */
export function gauge<Label extends string>(families: Families, description: Description<Label>) {
  const { name, help, labels } = description;
  const family = new Gauge({ name, help, labelNames: labels, registers: [families.registry] });
  const sets = new LabelSets(labels, families.labelValuesMax);
  return (values: Labels<Label>, value: number) => family.set(sets.fold(values), value);
}

async function within<T>(limitMs: number, work: Promise<T>): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(
    () => reject(new Error(`Cannot read source: no answer in ${limitMs} ms`)),
    limitMs,
  );
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Asks once for all who ask before the answer: a scrape asks every source at the same moment. */
export function shared<T>(ask: () => Promise<T>): () => Promise<T> {
  let asked: Promise<T> | undefined;
  return () => {
    asked ??= ask().finally(() => {
      asked = undefined;
    });
    return asked;
  };
}

/** Several rows that fold into one series: their sum, or the highest. */
type Merge = 'sum' | 'highest';

interface PulledDescription<Label extends string, Row> extends Description<Label> {
  readonly kind: 'counter' | 'gauge';
  readonly merge: Merge;
  /** Where they are not as many as everywhere. */
  readonly labelValuesMax?: number;
  /** The series of a row. */
  readonly of: (row: Row) => { readonly labels: Labels<Label>; readonly value: number };
}

/** A family that is asked for at scrape. Returns how to name its source; without one it has no series. */
export function pulled<Label extends string, Row>(
  families: Families,
  description: PulledDescription<Label, Row>,
): (source: Source<Row>) => void {
  const { name, help, labels, kind, merge, of } = description;
  const config = { name, help, labelNames: labels, registers: [families.registry] };
  const family = kind === 'counter' ? new Counter(config) : new Gauge(config);
  const sets = new LabelSets(labels, description.labelValuesMax ?? families.labelValuesMax);
  let ask: Source<Row> = () => [];
  let asked: Promise<readonly Row[]> | undefined;

  function show(rows: readonly Row[]): void {
    const series = rows.map(of);
    sets.retain(series.map((row) => row.labels));
    const merged = new Map<string, { labels: Record<Label, string>; value: number }>();
    for (const row of series) {
      const folded = sets.fold(row.labels);
      const key = JSON.stringify(labels.map((label) => folded[label]));
      const known = merged.get(key);
      if (known === undefined) merged.set(key, { labels: folded, value: row.value });
      else known.value = merge === 'sum' ? known.value + row.value : Math.max(known.value, row.value);
    }
    for (const row of merged.values()) family.inc(row.labels, row.value);
  }

  families.pulled.push({
    name,
    async ask() {
      // A gauge or counter without labels shows 0 after `reset`, but what is not known is not 0.
      family.reset();
      if (labels.length === 0) family.remove();
      if (asked !== undefined)
        throw new Error(`Cannot read source: ${name} has not answered the last scrape yet`);
      asked = (async () => ask())().finally(() => {
        asked = undefined;
      });
      const rows = await within(families.sourceMs, asked);
      return () => show(rows);
    },
  });
  return (source) => {
    ask = source;
  };
}

/** The same of a family that is one number, without labels: a gauge unless it says otherwise. */
export const pulledNumber = (
  families: Families,
  description: Omit<Description<never>, 'labels'> & { readonly kind?: 'counter' },
) =>
  pulled(families, {
    ...{ kind: 'gauge', ...description, labels: [], merge: 'sum' },
    of: (value: number | bigint) => ({ labels: {}, value: Number(value) }),
  });
