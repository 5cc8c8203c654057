/** One value of one series. */
export interface Sample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

const COMMENT = /^# (?:HELP|TYPE) [a-z][a-z0-9_]* \S.*$/;
const SAMPLE = /^([a-z][a-z0-9_]*)(?:\{(.*)\})? ([+-]?[0-9.]+(?:e[+-]?[0-9]+)?|NaN|[+-]Inf)$/;
const LABELS = /^(?:[a-z][a-z0-9_]*="(?:[^"\\]|\\[\\"n])*"(?:,(?=.)|$))*$/;
const LABEL = /([a-z][a-z0-9_]*)="((?:[^"\\]|\\[\\"n])*)"/g;
const UNESCAPED: Readonly<Record<string, string>> = { '\\\\': '\\', '\\"': '"', '\\n': '\n' };

/** Reads the Prometheus text format 0.0.4, as far as the product uses it; throws SyntaxError for any other line. */
export function parseExposition(text: string): Sample[] {
  if (!text.endsWith('\n')) throw new SyntaxError('the last line has no end');
  return text
    .slice(0, -1)
    .split('\n')
    .flatMap((line): Sample[] => {
      if (line === '' || COMMENT.test(line)) return [];
      const [, name, labelText = '', value] = SAMPLE.exec(line) ?? [];
      if (name === undefined || !LABELS.test(labelText)) throw new SyntaxError(`no sample: ${line}`);
      const labels = [...labelText.matchAll(LABEL)].map(([, label, raw]) => [
        label!,
        raw!.replace(/\\./g, (pair) => UNESCAPED[pair]!),
      ]);
      return [{ name, labels: Object.fromEntries(labels), value: Number(value!.replace('Inf', 'Infinity')) }];
    });
}

/** The value of the series with these labels; 0 where there is none. */
export function seriesValue(
  samples: readonly Sample[],
  name: string,
  labels: Readonly<Record<string, string>>,
): number {
  const wanted = Object.entries(labels);
  const found = samples.find(
    (sample) => sample.name === name && wanted.every(([label, value]) => sample.labels[label] === value),
  );
  return found?.value ?? 0;
}
