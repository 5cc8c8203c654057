import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readFlows } from 'sluice-gateway/analysis/read-flows.js';
import { type RecordedFlow, readOwnRecord } from 'sluice-gateway/analysis/recorded.js';
import { Simulation } from 'sluice-gateway/analysis/simulate.js';
import { Matcher } from 'sluice-gateway/matcher/matcher.js';
import { type Address, parseAddress, printAddress } from 'sluice-gateway/net/address.js';
import { type Prefix, prefixInterval } from 'sluice-gateway/net/prefix.js';
import { evaluate, type GroupPrefixes } from 'sluice-gateway/policy/evaluate.js';
import { type PolicyInForce, policyInForce } from 'sluice-gateway/policy/in-force.js';
import { policyAtScale, unpack } from '../data/policy.js';
import { type Random, seededRandom } from '../data/random.js';
import { type Bench, type BenchOptions, type Report, shortSpread, spreadOf, timed } from '../harness.js';

const SEED = 20_270_131;
const RECORDS = 1_000_000;
const SCALE = { groups: 300, rules: 2_000, prefixes: 50_000, overlap: 'realistic', seed: SEED } as const;
/** Pairs of ends that records come from, each many times. */
const PAIRS = 100_000;
const ROUNDS = 5;
const CHECKED = 500;
const LINES_AT_ONCE = 5_000;
/** Of the rules, so many are disabled in the policy that the records are of. */
const DISABLED_EVERY = 10;
const PORTS = [443, 443, 443, 53, 123, 5_432, 8_080, 25];

/** What of a record does not count for its verdict. */
const UNSAID: RecordedFlow = {
  ...{
    time: '',
    src: '',
    dst: '',
    protocol: 6,
    dstPort: 0,
    verdict: 'PERMIT',
    rule: undefined,
    enforced: true,
  },
  ...{ functions: [], groups: [], connections: 0, bytesOut: 0, bytesIn: 0 },
};

function addressIn(prefix: Prefix, random: Random): Address {
  const { first, last } = prefixInterval(prefix);
  return { family: prefix.family, value: first + (random.bits(32) % (last - first + 1n)) };
}

/** Records as the gateway writes them when connections end, of what another policy decided. */
function makeLines(groups: GroupPrefixes, before: Simulation, count: number, random: Random): () => string {
  const lists = [...groups].filter(([name, list]) => name !== 'Anywhere' && list.length > 0);
  const functions = lists.filter(([name]) => name.startsWith('function'));
  const pair = () => {
    const [name, from] = random.pick(functions);
    const prefix = random.pick(from);
    const targets = random.pick(lists)[1].filter(({ family }) => family === prefix.family);
    const target = targets.length === 0 ? prefix : random.pick(targets);
    const [src, dst] = [prefix, target].map((one) => printAddress(addressIn(one, random)));
    const port = random.pick(PORTS);
    const asked = { ...UNSAID, src: src!, dst: dst!, protocol: 6, dstPort: port };
    return { name, src, dst, port, decided: before.decide(asked)! };
  };
  const pairs = Array.from({ length: Math.min(PAIRS, count) }, pair);
  return () => {
    const { name, src, dst, port, decided } = random.pick(pairs);
    const isPermitted = decided.action === 'PERMIT';
    const time = new Date(1_790_000_000_000 + random.below(86_400_000)).toISOString();
    return `${JSON.stringify({
      ...{ schema: 'sluice.flow/1', time, event: isPermitted ? 'close' : 'deny', gateway: 'gw-a' },
      ...{ verdict: decided.action, enforced: true, reason: 'rule' },
      ...{ rule: { name: decided.name, priority: 10 }, generation: 7, start: time },
      src: {
        ...{ ip: src, port: 1_024 + random.below(60_000) },
        functions: [`arn:aws:lambda:us-east-1:111122223333:function:${name}`],
        groups: ['Anywhere', name],
        ...{ identity: 'dedicated-subnet', account: '111122223333', region: 'us-east-1' },
      },
      dst: { ip: dst, port, groups: ['Anywhere', 'Public Internet'] },
      ...{ protocol: 'TCP', communityId: '1:WRTMjb8cnI9rPear9xOVwMSbsJE=', end: time },
      ...{ nat: { ip: '198.18.0.1', port: 43_467 }, endReason: 'closed' },
      bytes: { out: random.below(100_000), in: random.below(1_000_000) },
      packets: { out: random.below(100), in: random.below(1_000) },
    })}\n`;
  };
}

function write(file: string, count: number, next: () => string): void {
  const descriptor = openSync(file, 'w');
  for (let left = count; left > 0; left -= LINES_AT_ONCE) {
    writeSync(descriptor, Array.from({ length: Math.min(left, LINES_AT_ONCE) }, next).join(''));
  }
  closeSync(descriptor);
}

/** Throws where the simulation says otherwise than `evaluate`. */
function check(
  policy: PolicyInForce,
  groups: GroupPrefixes,
  simulation: Simulation,
  next: () => string,
): void {
  for (let index = 0; index < CHECKED; index++) {
    const flow = readOwnRecord(next());
    if (typeof flow === 'string') throw new Error(`Cannot check: a record is ${flow}`);
    const [src, dst] = [parseAddress(flow.src), parseAddress(flow.dst)];
    const { decided } = evaluate(policy, groups, [], { ...flow, src, dst });
    if (simulation.decide(flow)?.name !== decided.name)
      throw new Error(`Cannot race: ${flow.src} to ${flow.dst}`);
  }
}

async function run(report: Report, { size = RECORDS }: BenchOptions): Promise<void> {
  const { groups: packed, policy } = policyAtScale(SCALE);
  const groups = new Map([...packed].map(([name, prefixes]) => [name, unpack(prefixes)]));
  const inForce = policyInForce(policy, new Date());
  const matcher = Matcher.build({
    groups: [...groups].map(([name, prefixes]) => ({ name, prefixes })),
    ...{ functions: [], excluded: [] },
  });
  const rules = inForce.rules.filter((_, index) => index % DISABLED_EVERY > 0);
  const before = new Simulation({ ...inForce, rules }, matcher);
  const next = makeLines(groups, before, size, seededRandom(SEED));
  check(inForce, groups, new Simulation(inForce, matcher), next);
  const folder = mkdtempSync(join(tmpdir(), 'sluice-simulate-'));
  try {
    const file = join(folder, 'flows.jsonl');
    report.progress('writing records');
    write(file, size, next);
    const rates: number[] = [];
    for (let round = 0; round <= ROUNDS; round++) {
      report.progress(`round ${round} of ${ROUNDS}`);
      const simulation = new Simulation(inForce, matcher);
      const { seconds } = await timed(() =>
        readFlows(
          [file],
          () => true,
          (read) => simulation.take(read),
        ),
      );
      if (simulation.result().judged !== size) throw new Error('Cannot measure: records were not judged');
      if (round > 0) rates.push(size / seconds);
    }
    const spread = spreadOf(rates);
    report.figure('recordsPerSecond', spread);
    report.note(
      `${size} records, ${SCALE.rules} rules, ${SCALE.prefixes} prefixes: ${shortSpread(spread)} records a second`,
    );
  } finally {
    rmSync(folder, { recursive: true });
  }
}

export const simulate: Bench = {
  question: 'How many recorded flows a second does simulate judge by another policy? --size: records',
  run,
};
