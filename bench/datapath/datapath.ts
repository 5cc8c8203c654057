import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestPacket } from 'sluice-test/support/frames.js';
import { seededRandom } from '../data/random.js';
import { type Bench, type Report, ratioOf, type Spread, short, shortSpread, spreadOf } from '../harness.js';
import { compileWire } from '../wire/wire.js';
import { type Delivered, RaceGateway } from './gateways.js';
import {
  choosePairs,
  DENIED_PORT,
  judgeOf,
  LARGE,
  largePolicy,
  type Pair,
  type PolicyData,
  smallPolicy,
} from './policies.js';
import { CONNTRACK_RULES, linearRules, load, writePolicyFile } from './rulesets.js';

const SEED = 20_270_131;
const PAIRS = 100_000;
const DENIED = 5_000;
const ROUNDS = 7;
/** Of processor time, which others on the machine don't share. */
const TURN_MS = 1_000;
/** New connections of one turn: fewer than the kernel keeps by default, 262,144. */
const CONNECTIONS_MAX = 200_000;
/** Of processor time. Enough for every pair, but with linear rules. */
const WARM_MS = 3_000;
/** Sender, gateway and far end run on this processor, one packet after the other. */
const CPU = 1;

const UDP = 17;
const GATEWAYS = ['none', 'conntrack', 'large', 'largeAlways', 'smallAlways', 'linear'] as const;
type GatewayName = (typeof GATEWAYS)[number];
type Gateways = Readonly<Record<GatewayName, RaceGateway>>;

interface Entrant {
  readonly name: string;
  readonly gateway: GatewayName;
  /** Every packet begins a connection. */
  readonly isNew?: boolean;
}

/** Those that are compared stand side by side. */
const ENTRANTS = {
  none: { name: 'no rules, no connection tracking', gateway: 'none' },
  conntrack: { name: 'connection tracking, then accept', gateway: 'conntrack' },
  judged: { name: 'large policy, connections judged before', gateway: 'large' },
  small: { name: 'small policy, every packet judged', gateway: 'smallAlways' },
  large: { name: 'large policy, every packet judged', gateway: 'largeAlways' },
  linear: { name: 'large policy as linear rules', gateway: 'linear' },
  conntrackNew: { name: 'connection tracking, new connections', gateway: 'conntrack', isNew: true },
  largeNew: { name: 'large policy, new connections', gateway: 'large', isNew: true },
} as const satisfies Readonly<Record<string, Entrant>>;
type EntrantName = keyof typeof ENTRANTS;

/** Figure, and whose packets a second are divided by whose. */
const RATIOS = [
  ['ratioJudged', 'judged', 'conntrack'],
  ['ratioClassifyLarge', 'large', 'small'],
  ['ratioNewConnections', 'largeNew', 'conntrackNew'],
  ['ratioLinear', 'large', 'linear'],
] as const satisfies readonly (readonly [string, EntrantName, EntrantName])[];

const datagram = ({ src, dst, port }: Pair, index: number): TestPacket => ({
  ...{ src, dst, protocol: UDP, srcPort: 1_024 + (index % 50_000), dstPort: port, tag: 0 },
});

/** What the race is about. */
interface Packets {
  readonly permitted: readonly Pair[];
  readonly deniedByLarge: readonly Pair[];
  readonly deniedBySmall: readonly Pair[];
}

function choosePackets(large: PolicyData, small: PolicyData): Packets {
  const random = seededRandom(SEED);
  const permitted = choosePairs(large, PAIRS, true, random);
  const deniedBySmall = permitted.slice(0, DENIED).map((pair) => ({ ...pair, port: DENIED_PORT }));
  const judge = judgeOf(small);
  if (!permitted.every(judge) || deniedBySmall.some(judge))
    throw new Error('Cannot race: the policies differ on what is sent');
  return { permitted, deniedByLarge: choosePairs(large, DENIED, false, random), deniedBySmall };
}

function setUp(gateways: Gateways, large: PolicyData, small: PolicyData, folder: string): void {
  const files = { large: join(folder, 'large.json'), small: join(folder, 'small.json') };
  writePolicyFile(files.large, large);
  writePolicyFile(files.small, small);
  load(gateways.large.namespace, files.large, 'once');
  load(gateways.largeAlways.namespace, files.large, 'always');
  load(gateways.smallAlways.namespace, files.small, 'always');
  gateways.conntrack.namespace.run('nft', ['-f', '-'], { input: CONNTRACK_RULES });
  writeFileSync(join(folder, 'linear.nft'), linearRules(large));
  gateways.linear.namespace.run('nft', ['-f', join(folder, 'linear.nft')]);
}

/** Nobody is raced that gives other answers. */
async function checkAnswers(gateways: Gateways): Promise<void> {
  for (const name of GATEWAYS) {
    const gateway = gateways[name];
    const limits = { packets: PAIRS, cpuMs: WARM_MS };
    const { sent, received } = await gateway.run('permitted', limits);
    if (sent !== received)
      throw new Error(`Cannot race: ${name} passed ${received} of ${sent} permitted packets`);
    if (name === 'none' || name === 'conntrack') continue;
    const denied = await gateway.run('denied', { ...limits, packets: DENIED });
    if (denied.received > 0)
      throw new Error(`Cannot race: ${name} passed ${denied.received} of ${denied.sent} denied packets`);
    await gateway.flush();
  }
}

async function takeTurn(gateways: Gateways, { name, gateway: where, isNew }: Entrant): Promise<Delivered> {
  const gateway = gateways[where];
  // The kernel keeps the connections of all namespaces in one table: each turn begins with none but its own.
  if (isNew !== true) await gateway.run('permitted', { packets: PAIRS, cpuMs: WARM_MS });
  const packets = isNew === true ? CONNECTIONS_MAX : Number.MAX_SAFE_INTEGER;
  const ran = await gateway.run('permitted', { packets, cpuMs: TURN_MS, shiftPorts: isNew === true });
  await gateway.flush();
  if (ran.received !== ran.sent)
    throw new Error(`Cannot race: "${name}" passed ${ran.received} of ${ran.sent} packets`);
  return ran;
}

type Samples = Readonly<Record<EntrantName, Delivered[]>>;

async function race(gateways: Gateways, report: Report): Promise<Samples> {
  const names = Object.keys(ENTRANTS) as EntrantName[];
  const samples = Object.fromEntries(names.map((name) => [name, []])) as unknown as Samples;
  for (let round = 0; round <= ROUNDS; round++) {
    report.progress(`round ${round} of ${ROUNDS}`);
    // There and back: what gets slower over a round is so for both sides of a ratio.
    for (const name of round % 2 === 0 ? names : names.toReversed()) {
      const turn = await takeTurn(gateways, ENTRANTS[name]);
      if (round > 0) samples[name].push(turn);
    }
  }
  return samples;
}

const perCpuSecond = ({ received, cpuSeconds }: Delivered) => received / cpuSeconds;
const perSecond = ({ received, wallSeconds }: Delivered) => received / wallSeconds;

function tell(samples: Samples, report: Report): void {
  const names = Object.keys(ENTRANTS) as EntrantName[];
  const rates = Object.fromEntries(
    names.map((name) => [name, spreadOf(samples[name].map(perCpuSecond))]),
  ) as Readonly<Record<EntrantName, Spread>>;
  report.table(
    `Packets a second of one processor, ${PAIRS} pairs; median (lowest–highest) of ${ROUNDS} rounds`,
    ['', 'of processor time', 'of wall time', 'to conntrack', 'ns a packet'],
    names.map((name) => [
      ENTRANTS[name].name,
      shortSpread(rates[name]),
      short(spreadOf(samples[name].map(perSecond)).median),
      ratioOf(rates[name], rates.conntrack).median.toFixed(2),
      (1e9 / rates[name].median).toFixed(0),
    ]),
  );
  const rows = RATIOS.map(([figure, ours, theirs]): string[] => {
    const ratios = ratioOf(rates[ours], rates[theirs]);
    report.figure(figure, ratios);
    return [figure, `${ENTRANTS[ours].name} / ${ENTRANTS[theirs].name}`, shortSpread(ratios)];
  });
  report.table('Ratios, round by round; median (lowest–highest)', ['', 'of', ''], rows);
  for (const name of ['conntrack', 'judged', 'large'] as const)
    report.figure(`${name}PacketsPerSecond`, rates[name]);
}

async function run(report: Report): Promise<void> {
  if (process.getuid?.() !== 0) throw new Error('Cannot measure: network namespaces need root');
  const folder = mkdtempSync(join(tmpdir(), 'sluice-bench-'));
  const made: RaceGateway[] = [];
  try {
    const { groups, rules, prefixes } = LARGE;
    report.note(`The large policy has ${groups} groups, ${rules} rules, ${prefixes} prefixes.`);
    report.progress('making policies');
    const program = compileWire(folder);
    const [large, small] = [largePolicy(SEED), smallPolicy()];
    const { permitted, deniedByLarge, deniedBySmall } = choosePackets(large, small);
    const gateways = Object.fromEntries(
      GATEWAYS.map((name) => {
        made.push(new RaceGateway());
        return [name, made.at(-1)!];
      }),
    ) as unknown as Gateways;
    report.progress('loading rules');
    setUp(gateways, large, small, folder);
    for (const name of GATEWAYS) {
      const options = { program, folder, cpu: CPU };
      await gateways[name].addSender('permitted', permitted.map(datagram), options);
      const denied = name === 'smallAlways' ? deniedBySmall : deniedByLarge;
      await gateways[name].addSender('denied', denied.map(datagram), options);
    }
    await checkAnswers(gateways);
    for (const gateway of made) await gateway.flush();
    tell(await race(gateways, report), report);
  } finally {
    for (const gateway of made) gateway.remove();
    rmSync(folder, { recursive: true });
  }
}

export const datapath: Bench = {
  question: 'What does a packet cost, judged before or not, under a large policy?',
  run,
};
