import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { serialize } from 'node:v8';
import { policyAtScale } from '../data/policy.js';
import { type Bench, type BenchOptions, type Report, ratioOf, shortSpread, spreadOf } from '../harness.js';
import { canCompile, compile } from '../program.js';
import type { ChangesResult } from './changes.js';
import { FLOOR } from './floor.js';
import type { ApplyJob, ApplyResult } from './worker.js';

const WORKER = fileURLToPath(new URL('worker.js', import.meta.url));
const CHANGES = fileURLToPath(new URL('changes.js', import.meta.url));
/** What changes are made to: as many as the product is to take. */
const SCALE = {
  groups: 1_000,
  rules: 10_000,
  prefixes: 1_000_000,
  overlap: 'realistic',
  seed: 20_270_131,
} as const;
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

/** One change after another to a large program in the kernel. */
function measureChanges(report: Report, prefixes: number): void {
  report.progress(`changes to ${prefixes} prefixes`);
  const folder = mkdtempSync(join(tmpdir(), 'sluice-changes-'));
  try {
    const file = join(folder, 'policy');
    writeFileSync(file, serialize(policyAtScale({ ...SCALE, prefixes })));
    const args = ['-n', process.execPath, '--max-old-space-size=8192', CHANGES, file];
    const { status, stdout, stderr, error } = spawnSync('unshare', args, { maxBuffer: 1 << 24 });
    if (status !== 0) throw new Error(`Cannot measure: ${error?.message ?? stderr.toString()}`);
    const found = JSON.parse(stdout.toString()) as ChangesResult;
    const at = (samples: readonly number[], part: number) =>
      samples.toSorted((a, b) => a - b)[Math.floor(samples.length * part)]!;
    const rows = (['deltaMs', 'ruleChangeMs'] as const).map((name) => [
      name === 'deltaMs' ? 'a prefix comes or goes' : 'a rule changes',
      String(found[name].length),
      ...[0.5, 0.9, 0.99].map((part) => at(found[name], part).toFixed(1)),
    ]);
    report.figure('membershipDeltaP99Ms', at(found.deltaMs, 0.99));
    report.figure('membershipDeltaMedianMs', at(found.deltaMs, 0.5));
    report.figure('ruleChangeP99Ms', at(found.ruleChangeMs, 0.99));
    report.table(
      `Changes to ${found.intervals} intervals, compiled and in force; ms`,
      ['', 'samples', 'median', '90 %', '99 %'],
      rows,
    );
    report.note(
      `Compiled at first in ${found.compileSeconds.toFixed(1)} s, loaded in ${found.loadSeconds.toFixed(1)} s; ` +
        `${found.rebuilt} of the prefixes were no edit in place`,
    );
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function run(report: Report, { size = SCALE.prefixes }: BenchOptions): Promise<void> {
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
  measureChanges(report, size);
}

export const apply: Bench = {
  question: 'How long until a program is in the kernel, by our netlink and by nft -f?',
  run,
};
