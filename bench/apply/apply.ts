import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { type Bench, type Report, ratioOf, shortSpread, spreadOf } from '../harness.js';
import { canCompile, compile } from '../program.js';
import { FLOOR } from './floor.js';
import type { ApplyJob, ApplyResult } from './worker.js';

const WORKER = fileURLToPath(new URL('worker.js', import.meta.url));
/** Listing is quadratic: what was loaded is compared at the smallest sizes. */
const SIZES = [
  { prefixes: 1_000, rounds: 7, check: true },
  { prefixes: 10_000, rounds: 7, check: true },
  { prefixes: 100_000, rounds: 5, check: false },
  { prefixes: 400_000, rounds: 5, check: false },
] as const;

function work(job: ApplyJob): ApplyResult {
  const args = ['-n', process.execPath, WORKER, JSON.stringify(job)];
  const { status, stdout, stderr, error } = spawnSync('unshare', args, { maxBuffer: 1 << 24 });
  if (status !== 0) throw new Error(`Cannot measure: ${error?.message ?? stderr.toString()}`);
  return JSON.parse(stdout.toString()) as ApplyResult;
}

async function run(report: Report): Promise<void> {
  if (process.getuid?.() !== 0) throw new Error('Cannot measure: network namespaces need root');
  const floor = canCompile(FLOOR) ? compile(FLOOR) : undefined;
  if (floor === undefined) report.note(`Without the floor: ${FLOOR.debianPackage} is not installed`);
  const rows: string[][] = [];
  for (const size of SIZES) {
    report.progress(`${size.prefixes} prefixes`);
    const found = work({ ...size, floor });
    const [ours, nft] = [spreadOf(found.oursSeconds), spreadOf(found.nftSeconds)];
    const lowest = floor === undefined ? undefined : spreadOf(found.floorSeconds);
    const ratioNft = ratioOf(ours, nft);
    const ratioFloor = lowest && ratioOf(ours, lowest);
    rows.push([
      String(size.prefixes),
      String(found.intervals),
      String(found.maps),
      found.compileSeconds.toFixed(2),
      ...[ours, nft, lowest, ratioNft, ratioFloor].map((spread) => (spread ? shortSpread(spread) : '')),
    ]);
    if (size !== SIZES.at(-1)) continue;
    report.figure('intervals', found.intervals);
    report.figure('loadSeconds', ours);
    report.figure('ratioNft', ratioNft);
    if (ratioFloor !== undefined) report.figure('ratioFloor', ratioFloor);
  }
  report.table(
    'A whole program into an empty kernel; seconds, median (lowest–highest)',
    ['prefixes', 'intervals', 'maps', 'compile', 'ours', 'nft -f', 'floor', 'ours / nft', 'ours / floor'],
    rows,
  );
}

export const apply: Bench = {
  question: 'How long until a program is in the kernel, by our netlink and by nft -f?',
  run,
};
