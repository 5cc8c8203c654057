import { writeFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { apply } from './apply/apply.js';
import { churn } from './churn/churn.js';
import { datapath } from './datapath/datapath.js';
import { flows } from './flows/flows.js';
import type { Bench, BenchOptions } from './harness.js';
import { inventory } from './inventory/inventory.js';
import { lpm } from './lpm/lpm.js';
import { memory } from './memory/memory.js';
import { ConsoleReport } from './report.js';
import { simulate } from './simulate/simulate.js';

const BENCHES: Readonly<Record<string, Bench>> = {
  ...{ apply, churn, datapath, flows, inventory, lpm, memory, simulate },
};

const usage = () =>
  ['Usage: npm run bench -- NAME [--size N] [--json FILE]', '']
    .concat(Object.entries(BENCHES).map(([name, { question }]) => `  ${name.padEnd(9)} ${question}`))
    .join('\n');

interface Wanted {
  readonly name: string;
  readonly json: string | undefined;
  readonly options: BenchOptions;
}

function readArguments(): Wanted | undefined {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: { json: { type: 'string' }, size: { type: 'string' } },
    });
    const [name] = positionals;
    if (positionals.length !== 1 || name === undefined || !Object.hasOwn(BENCHES, name)) return undefined;
    const { json, size } = values;
    if (size === undefined) return { name, json, options: {} };
    return /^[1-9][0-9]*$/.test(size) ? { name, json, options: { size: Number(size) } } : undefined;
  } catch {
    return undefined;
  }
}

async function main(): Promise<number> {
  const wanted = readArguments();
  if (wanted === undefined) {
    process.stderr.write(`${usage()}\n`);
    return 2;
  }
  const bench = BENCHES[wanted.name]!;
  const report = new ConsoleReport(wanted.name, process.stdout, process.stderr);
  report.note(`${wanted.name}: ${bench.question}`);
  await bench.run(report, wanted.options);
  const result = report.result();
  report.table(
    'Figures',
    ['name', 'median', 'low', 'high'],
    Object.entries(result.figures).map(([name, value]) => [
      name,
      ...[value, ...(result.intervals[name] ?? [])].map((number) => number.toPrecision(4)),
    ]),
  );
  if (wanted.json !== undefined) await writeFile(wanted.json, `${JSON.stringify(result, null, 2)}\n`);
  return 0;
}

process.exitCode = await main();
