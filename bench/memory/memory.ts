import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { serialize } from 'node:v8';
import { policyAtScale } from '../data/policy.js';
import { type Bench, type BenchOptions, type Report, short, shortSpread, spreadOf } from '../harness.js';
import { kernelBytes } from '../kernel-memory.js';
import type { MemoryStage } from './worker.js';

const WORKER = fileURLToPath(new URL('worker.js', import.meta.url));
const SEED = 20_270_131;
const PREFIXES = 1_000_000;
const GROUPS = 1_000;
const RULES = 10_000;
const ROUNDS = 3;
const SAMPLE_MS = 20;
const MIB = 1 << 20;

interface Found {
  readonly rssMiB: number;
  readonly kernelMiB: number;
  readonly peakMiB: number;
  readonly intervals: number;
}

function rssBytes(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return 1024 * Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0);
}

/** One load, and one reload, by a process of its own; this one samples both memories while it works. */
async function measure(file: string): Promise<Found> {
  const child = spawn('unshare', ['-n', process.execPath, '--max-old-space-size=8192', WORKER, file], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const closed = once(child, 'close');
  let [kernelBefore, peak] = [0, 0];
  let settled: Extract<MemoryStage, { stage: 'settled' }> | undefined;
  const sample = () => {
    if (settled !== undefined) peak = Math.max(peak, rssBytes(child.pid!) + kernelBytes() - kernelBefore);
  };
  const timer = setInterval(sample, SAMPLE_MS);
  let done = false;
  for await (const line of createInterface(child.stdout)) {
    const stage = JSON.parse(line) as MemoryStage;
    if (stage.stage === 'started') kernelBefore = stage.kernelBytes;
    else if (stage.stage === 'settled') settled = stage;
    else done = true;
    if (done) clearInterval(timer);
  }
  clearInterval(timer);
  await closed;
  if (settled === undefined || !done) throw new Error('Cannot measure: the worker failed');
  return {
    rssMiB: settled.rssBytes / MIB,
    kernelMiB: (settled.kernelBytes - kernelBefore) / MIB,
    peakMiB: peak / MIB,
    intervals: settled.intervals,
  };
}

async function run(report: Report, { size = PREFIXES }: BenchOptions): Promise<void> {
  if (process.getuid?.() !== 0) throw new Error('Cannot measure: network namespaces need root');
  const folder = mkdtempSync(join(tmpdir(), 'sluice-memory-'));
  try {
    const file = join(folder, 'policy');
    const scale = { groups: GROUPS, rules: RULES, prefixes: size, overlap: 'realistic', seed: SEED } as const;
    report.note(
      `${size} prefixes in ${GROUPS} groups, ${RULES} rules, seed ${SEED}, Node ${process.version}`,
    );
    writeFileSync(file, serialize(policyAtScale(scale)));
    const rounds: Found[] = [];
    for (let round = 1; round <= ROUNDS; round++) {
      report.progress(`round ${round} of ${ROUNDS}`);
      rounds.push(await measure(file));
    }
    const figures = (['rssMiB', 'kernelMiB', 'peakMiB'] as const).map((name) => {
      const spread = spreadOf(rounds.map((found) => found[name]));
      report.figure(name, spread);
      return [name, shortSpread(spread)];
    });
    report.figure('intervals', rounds[0]!.intervals);
    report.table('Memory, MiB: median (lowest–highest)', ['', 'MiB'], figures);
    report.note(`  of a program of ${short(rounds[0]!.intervals)} intervals`);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

export const memory: Bench = {
  question: 'How much memory do a gateway and its kernel take, standing and at a reload? --size: prefixes',
  run,
};
