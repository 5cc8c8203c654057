import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { writeSnapshot } from 'sluice-controller-client/snapshot/write.js';
import { policyAtScale, unpack } from '../data/policy.js';
import { GATEWAY_CONFIG, GatewayProcess } from '../gateway-process.js';
import { type Bench, type BenchOptions, type Report, shortSpread, spreadOf } from '../harness.js';
import { kernelBytes, settledKernelBytes } from '../kernel-memory.js';

const SEED = 20_270_131;
/** With those that two groups have, just below the million that a snapshot may hold. */
const PREFIXES = 970_000;
const GROUPS = 1_000;
const RULES = 10_000;
const ROUNDS = 3;
const SAMPLE_MS = 20;
const RSS_POLL_MS = 1_000;
/** The gateway gives memory back ten seconds after a change, and V8 some when it has been idle. */
const RSS_SETTLED_READINGS = 15;
const RSS_SETTLED_BYTES = 1 << 20;
const RSS_SETTLE_MS_MAX = 90_000;
const MIB = 1 << 20;

interface Found {
  readonly rssMiB: number;
  readonly kernelMiB: number;
  readonly peakMiB: number;
}

function rssBytes(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return 1024 * Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)![1]);
}

async function settledRss(pid: number): Promise<number> {
  const readings: number[] = [];
  for (
    const endMs = performance.now() + RSS_SETTLE_MS_MAX;
    performance.now() < endMs;
    await delay(RSS_POLL_MS)
  ) {
    readings.push(rssBytes(pid));
    const last = readings.slice(-RSS_SETTLED_READINGS);
    const isSteady = Math.max(...last) - Math.min(...last) < RSS_SETTLED_BYTES;
    if (last.length === RSS_SETTLED_READINGS && isSteady) break;
  }
  return readings.at(-1)!;
}

/** Brings a policy whose rules and members no other seed has. Gives its revision. */
async function publish(folder: string, prefixes: number, seed: number): Promise<number> {
  const scale = { groups: GROUPS, rules: RULES, prefixes, overlap: 'realistic', seed } as const;
  const { groups, policy } = policyAtScale(scale);
  const named = [...groups].map(([name, packed]) => ({
    ...{ name, resolved: true, members: [] },
    prefixes: unpack(packed),
  }));
  const content = { policy, groups: named, inventory: { functions: [], scopes: [] } };
  return (await writeSnapshot(folder, content, { now: new Date() })).revision;
}

/** A gateway's first policy and its second; both memories are sampled from when the first stands. */
async function measure(prefixes: number): Promise<Found> {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-memory-'));
  writeFileSync(join(folder, 'sluice.yaml'), `${GATEWAY_CONFIG}policy: { path: policy/ }\n`);
  const before = await settledKernelBytes();
  let gateway: GatewayProcess | undefined;
  let timer: NodeJS.Timeout | undefined;
  try {
    const first = await publish(join(folder, 'snapshot'), prefixes, SEED);
    gateway = new GatewayProcess(folder);
    const { pid } = gateway;
    await gateway.inForce(first);
    const rss = await settledRss(pid);
    const kernel = (await settledKernelBytes()) - before;
    let peak = 0;
    timer = setInterval(() => {
      peak = Math.max(peak, rssBytes(pid) + kernelBytes() - before);
    }, SAMPLE_MS);
    await gateway.inForce(await publish(join(folder, 'snapshot'), prefixes, SEED + 1));
    await settledKernelBytes();
    return { rssMiB: rss / MIB, kernelMiB: kernel / MIB, peakMiB: peak / MIB };
  } finally {
    clearInterval(timer);
    gateway?.remove();
    rmSync(folder, { recursive: true });
  }
}

async function run(report: Report, { size = PREFIXES }: BenchOptions): Promise<void> {
  report.note(`${size} prefixes in ${GROUPS} groups, ${RULES} rules, seed ${SEED}, Node ${process.version}`);
  const rounds: Found[] = [];
  for (let round = 1; round <= ROUNDS; round++) {
    report.progress(`round ${round} of ${ROUNDS}`);
    rounds.push(await measure(size));
  }
  const figures = (['rssMiB', 'kernelMiB', 'peakMiB'] as const).map((name) => {
    const spread = spreadOf(rounds.map((found) => found[name]));
    report.figure(name, spread);
    return [name, shortSpread(spread)];
  });
  report.table('Memory, MiB: median (lowest–highest)', ['', 'MiB'], figures);
}

export const memory: Bench = {
  question: 'How much memory do a gateway and its kernel take, standing and at a reload? --size: prefixes',
  run,
};
