import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { type Bench, type Report, shortSpread, spreadOf } from '../harness.js';
import type { ApplyResult } from './worker.js';

const WORKER = fileURLToPath(new URL('worker.js', import.meta.url));
/** Listing is quadratic: what was loaded is compared at the smallest size. */
const SIZES = [
  { prefixes: 1_000, rounds: 7, mode: 'check' },
  { prefixes: 10_000, rounds: 7, mode: 'check' },
  { prefixes: 100_000, rounds: 5, mode: 'trust' },
  { prefixes: 400_000, rounds: 3, mode: 'trust' },
] as const;

function work({ prefixes, rounds, mode }: (typeof SIZES)[number]): ApplyResult {
  const args = ['-n', process.execPath, WORKER, String(prefixes), String(rounds), mode];
  const { status, stdout, stderr, error } = spawnSync('unshare', args, { maxBuffer: 1 << 24 });
  if (status !== 0) throw new Error(`Cannot measure: ${error?.message ?? stderr.toString()}`);
  return JSON.parse(stdout.toString()) as ApplyResult;
}

async function run(report: Report): Promise<void> {
  if (process.getuid?.() !== 0) throw new Error('Cannot measure: network namespaces need root');
  const rows: string[][] = [];
  for (const size of SIZES) {
    report.progress(`${size.prefixes} prefixes`);
    const { intervals, compileSeconds, oursSeconds, nftSeconds } = work(size);
    const ratios = spreadOf(oursSeconds.map((seconds, round) => seconds / nftSeconds[round]!));
    rows.push([
      String(size.prefixes),
      String(intervals),
      compileSeconds.toFixed(2),
      shortSpread(spreadOf(oursSeconds)),
      shortSpread(spreadOf(nftSeconds)),
      shortSpread(ratios),
    ]);
    if (size !== SIZES.at(-1)) continue;
    report.figure('intervals', intervals);
    report.figure('loadSeconds', spreadOf(oursSeconds));
    report.figure('ratioNft', ratios);
  }
  report.table(
    'A whole program into an empty kernel; seconds, median (lowest–highest)',
    ['prefixes', 'intervals', 'compile', 'ours', 'nft -f', 'ours / nft'],
    rows,
  );
}

export const apply: Bench = {
  question: 'How long until a program is in the kernel, by our netlink and by nft -f?',
  run,
};
