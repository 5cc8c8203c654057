import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { seededRandom } from '../data/random.js';
import { type Bench, type Report, spreadOf } from '../harness.js';
import { compileWire } from '../wire/wire.js';
import { chooseTraffic, isMidStream, printPacket, type Traffic } from './packets.js';
import { type ByChange, type Ended, Site } from './site.js';
import { CHANGE_KINDS, type Change, type ChangeKind, Changes } from './worlds.js';

const CHANGES = Number(process.env.CHURN_CHANGES ?? 1_000);
const SEED = Number(process.env.TEST_SEED ?? 20_270_131);
/** Of each host that sends them; the permitted ones twice. */
const RATES = { deniedPerSecond: 3_000, permittedPerSecond: 1_000 };
/** One change in so many is followed by the next at once. */
const HASTE = 8;
/** A connection without an answer for so long is broken. */
const SILENT_MS_MAX = 5_000;
const LEAKS_TOLD_MAX = 20;
/** Every packet of the flood is sent several times in this time. */
const OPEN_MS = 2_000;
/** What was sent under the open policy has arrived by then. */
const CALM_MS = 500;

const total = (counts: Iterable<number>) => [...counts].reduce((sum, count) => sum + count, 0);

/** Every change in its order, and how long each took that was waited for. */
async function makeChanges(site: Site, changes: readonly Change[], atChange: (index: number) => void) {
  const random = seededRandom(SEED);
  const seconds: { readonly kind: ChangeKind; readonly seconds: number }[] = [];
  let isFlushed = false;
  for (const [index, { kind, world }] of changes.entries()) {
    atChange(index);
    // What is lost before a flushed table is back is lost by the flush, whatever else happens meanwhile.
    if (!isFlushed) site.epoch(index + 1);
    isFlushed ||= kind === 'table flushed';
    const start = performance.now();
    if (kind === 'gateway killed') await site.restart();
    if (kind === 'table flushed') site.flushTable();
    const revision = await site.publish(world);
    if (random.below(HASTE) === 0 && index < changes.length - 1) continue;
    await site.inForce(revision);
    isFlushed = false;
    seconds.push({ kind, seconds: (performance.now() - start) / 1000 });
  }
  return seconds;
}

/** Of the packets that were sent while changes of a kind were under way. */
function countOf(counters: ByChange, changes: readonly Change[], kind: ChangeKind): number {
  const isOf = (epoch: number) => changes[epoch - 1]?.kind === kind;
  return total(
    counters.flatMap((counts) => [...counts].filter(([epoch]) => isOf(epoch)).map(([, one]) => one)),
  );
}

function tell(
  report: Report,
  changes: readonly Change[],
  seconds: Awaited<ReturnType<typeof makeChanges>>,
  ended: Ended,
  leaks: readonly number[],
): void {
  const rows = CHANGE_KINDS.map((kind) => {
    const [sent, received] = [ended.sent, ended.received].map((all) => countOf(all, changes, kind)) as [
      number,
      number,
    ];
    const took = seconds.filter((one) => one.kind === kind).map((one) => one.seconds);
    return [
      kind,
      String(changes.filter((change) => change.kind === kind).length),
      took.length === 0 ? '' : spreadOf(took).median.toFixed(3),
      String(sent),
      String(sent - received),
      String(leaks.filter((change) => changes[change]?.kind === kind).length),
    ];
  });
  report.table(
    'By what was under way',
    ['', 'changes', 'seconds, median', 'permitted sent', 'of them lost', 'leaked'],
    rows,
  );
}

function figures(
  report: Report,
  changes: readonly Change[],
  { deniedSent, sent, received, streams }: Ended,
  leaked: number,
  took: readonly number[],
): void {
  const sorted = took.toSorted((a, b) => a - b);
  const silent = streams.map(({ silentMs }) => silentMs);
  const sum = (all: ByChange) => total(all.flatMap((counts) => [...counts.values()]));
  report.figure('changes', CHANGES);
  report.figure('deniedPacketsSent', deniedSent);
  report.figure('leaked', leaked);
  report.figure('permittedConnections', streams.length);
  report.figure(
    'permittedConnectionsBroken',
    streams.filter(({ hasEnded, lastMs, bytes }) => hasEnded || lastMs > SILENT_MS_MAX || bytes === 0).length,
  );
  if (sum(sent) === 0 || deniedSent === 0) throw new Error('Cannot tell anything: nothing was sent');
  report.figure('permittedPacketsSent', sum(sent));
  report.figure('permittedPacketsDropped', sum(sent) - sum(received));
  const flushed = [sent, received].map((all) => countOf(all, changes, 'table flushed')) as [number, number];
  report.figure('permittedPacketsDroppedByFlush', flushed[0] - flushed[1]);
  report.figure('connectionSilentMsMax', Math.max(...silent));
  report.figure('changeSecondsMedian', spreadOf(took).median);
  report.figure('changeSeconds99', sorted[Math.ceil(sorted.length * 0.99) - 1]!);
}

/** Told of each packet of the flood that arrives: at first all must, then none may. */
class Arrivals {
  /** By what was under way. */
  readonly leaks: number[] = [];
  /** The change under way; undefined while everything is permitted. */
  change: number | undefined;
  readonly #traffic: Traffic;
  readonly #tell: (packet: string, change: number) => void;
  readonly #seen = new Set<number>();

  constructor(traffic: Traffic, tell: (packet: string, change: number) => void) {
    this.#traffic = traffic;
    this.#tell = tell;
  }

  add(index: number): void {
    if (this.change === undefined) {
      this.#seen.add(index);
      return;
    }
    this.leaks.push(this.change);
    if (this.leaks.length <= LEAKS_TOLD_MAX) this.#tell(printPacket(this.#traffic.all[index]!), this.change);
  }

  /** A packet that does not arrive either way would prove nothing. One of no connection never does. */
  checkOpen(): void {
    const missing = this.#traffic.all.filter(
      (packet, index) => !isMidStream(packet) && !this.#seen.has(index),
    );
    if (missing.length === 0) return;
    const which = missing.slice(0, 3).map(printPacket).join('; ');
    throw new Error(
      `Cannot tell leaks: ${missing.length} packets don't arrive when all is permitted: ${which}`,
    );
  }
}

async function churnAt(folder: string, report: Report): Promise<void> {
  report.progress('making changes');
  const maker = new Changes(seededRandom(SEED), SEED);
  const first = maker.world;
  const changes = Array.from({ length: CHANGES }, () => maker.next());
  report.progress('choosing traffic');
  const worlds = [first, ...changes.map(({ world }) => world)];
  const traffic = chooseTraffic(worlds, seededRandom(SEED + 1));
  const arrivals = new Arrivals(traffic, (packet, change) => {
    const kind = changes[change]?.kind ?? 'nothing yet';
    report.note(`LEAK of ${packet}; under way: ${kind}, change ${change}; seed ${SEED}`);
  });
  const site = await Site.create(folder, compileWire(folder));
  try {
    await site.publish({
      ...first,
      policy: { rules: [], defaultAction: { action: 'PERMIT', logging: false } },
    });
    await site.restart();
    await site.inForce(1);
    await site.startTraffic(traffic, RATES, (index) => arrivals.add(index));
    await delay(OPEN_MS);
    arrivals.checkOpen();
    await site.inForce(await site.publish(first));
    await delay(CALM_MS);
    arrivals.change = -1;
    await delay(CALM_MS);
    const seconds = await makeChanges(site, changes, (index) => {
      arrivals.change = index;
      report.progress(`change ${index + 1} of ${CHANGES}, ${arrivals.leaks.length} leaked`);
    });
    const ended = await site.stopTraffic();
    tell(report, changes, seconds, ended, arrivals.leaks);
    figures(
      report,
      changes,
      ended,
      arrivals.leaks.length,
      seconds.map((one) => one.seconds),
    );
  } finally {
    site.remove();
  }
}

async function run(report: Report): Promise<void> {
  if (process.getuid?.() !== 0) throw new Error('Cannot measure: network namespaces need root');
  const folder = mkdtempSync(join(tmpdir(), 'sluice-bench-'));
  try {
    await churnAt(folder, report);
  } finally {
    rmSync(folder, { recursive: true, maxRetries: 5 });
  }
}

export const churn: Bench = {
  question: 'Does anything leak or break while policy changes a thousand times under a flood?',
  run,
};
