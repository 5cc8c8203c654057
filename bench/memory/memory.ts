import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { writeSnapshot } from 'sluice-controller-client/snapshot/write.js';
import { policyAtScale, unpack } from '../data/policy.js';
import { GATEWAY_CONFIG, GatewayProcess } from '../gateway-process.js';
import { type Bench, type BenchOptions, type Report, shortSpread, spreadOf } from '../harness.js';
import { kernelBytes, processBytes, settled, settledKernelBytes } from '../memory-use.js';

const SEED = 20_270_131;
/** With those that two groups have, just below the million that a snapshot may hold. */
const PREFIXES = 970_000;
const GROUPS = 1_000;
const RULES = 10_000;
const ROUNDS = 3;
const SAMPLE_MS = 20;
/** The gateway gives memory back ten seconds after a change, and V8 some when it has been idle. */
const PATIENCE = { pollMs: 1_000, readings: 15, msMax: 90_000 } as const;
const MIB = 1 << 20;

interface Found {
  readonly rssMiB: number;
  readonly kernelMiB: number;
  readonly peakMiB: number;
}

/** Brings a policy whose rules and members no other seed has. Gives its revision. */
async function publish(folder: string, prefixes: number, seed: number): Promise<number> {
  const scale = { groups: GROUPS, rules: RULES, prefixes, overlap: 'realistic', seed } as const;
  const { groups, policy } = policyAtScale(scale);
  const named = [...groups].map(([name, packed]) => ({
    name,
    resolved: true,
    members: [],
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
    const rssBytes = () => processBytes(pid, 'VmRSS');
    await gateway.inForce(first);
    const rss = await settled(rssBytes, PATIENCE);
    const kernel = (await settledKernelBytes()) - before;
    let peak = 0;
    timer = setInterval(() => {
      peak = Math.max(peak, rssBytes() + kernelBytes() - before);
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
