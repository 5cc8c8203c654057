import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { FlowRecord } from 'sluice-gateway/flows/record.js';
import { parseAddress } from 'sluice-gateway/net/address.js';
import type { TestPacket } from 'sluice-test/support/frames.js';
import { sysctl } from 'sluice-test/support/namespace.js';
import { RaceGateway } from '../datapath/gateways.js';
import { CONNTRACK_RULES } from '../datapath/rulesets.js';
import { type Bench, type Report, ratioOf, type Spread, shortSpread, spreadOf } from '../harness.js';
import { compileWire } from '../wire/wire.js';
import { hasUlogd, Writer } from './contestants.js';
import type { ReaderResult } from './reader.js';

const LOAD = fileURLToPath(import.meta.resolve('sluice-test/support/conntrack-load.js'));
const CONNECTIONS = 60_000;
/** Of them in a turn, the second of which counts. */
const LOADS = 2;
const ROUNDS = 5;
const FLOOD_ROUNDS = 3;
/** Connections a second in the race: slow enough that nobody loses any. */
const RACE_PER_SECOND = 20_000;
const FLOOD_FACTOR = 10;
/** Fewer than the kernel keeps, 262,144; made and ended again and again. */
const FLOOD_CONNECTIONS = 200_000;
const RATE_CYCLES = 2;
/** Whoever writes stays on one processor, what makes load on the other. */
const [WRITER_CPU, LOAD_CPU] = [0, 1];
const PAIRS = 10_000;
const DATAPATH_MS = 1_000;
const UDP = 17;

/** Makes connections, then ends them; both at a rate. Resolves to how many seconds both took. */
async function load(
  gateway: RaceGateway,
  count: number,
  perSecond: number,
  kinds = ['new', 'delete'],
): Promise<number> {
  let seconds = 0;
  for (const kind of kinds) {
    const child = gateway.namespace.spawn('taskset', [
      ...['-c', String(LOAD_CPU), process.execPath, LOAD, kind, '0', String(count)],
      ...(Number.isFinite(perSecond) ? [String(Math.round(perSecond))] : []),
    ]);
    const parts: Buffer[] = [];
    child.stdout!.on('data', (part: Buffer) => parts.push(part));
    await once(child, 'close');
    const said = JSON.parse(Buffer.concat(parts).toString()) as { refused: number; seconds: number };
    if (said.refused > 0) throw new Error(`Cannot make load: ${said.refused} connections were refused`);
    seconds += said.seconds;
  }
  return seconds;
}

/** Every connection twice, by name where that is asked for; throws where one is missing. */
async function checkOurs(writer: Writer): Promise<void> {
  const ends = { open: new Set<string>(), close: new Set<string>() };
  let isNamed = true;
  await writer.lines((line) => {
    const { event, src, dst, rule } = JSON.parse(line) as FlowRecord;
    isNamed &&=
      rule?.name === 'workers-to-payments' && src!.functions.length > 0 && dst!.groups.includes('payments');
    if (event === 'open' || event === 'close') ends[event].add(`${src!.ip} ${src!.port}`);
  });
  if (!isNamed || ends.open.size !== CONNECTIONS || ends.close.size !== CONNECTIONS)
    throw new Error(
      `Cannot race: ours told of ${ends.open.size} and ${ends.close.size} of ${CONNECTIONS} connections`,
    );
}

async function checkTheirs(writer: Writer): Promise<void> {
  const ends = new Set<string>();
  const lines = await writer.lines((line) => {
    const told = JSON.parse(line) as Record<string, unknown>;
    ends.add(`${told.src_ip} ${told['orig.l4.sport']}`);
  });
  if (lines !== 2 * LOADS * CONNECTIONS || ends.size !== CONNECTIONS)
    throw new Error(`Cannot race: ulogd2 wrote ${lines} lines of ${ends.size} of ${CONNECTIONS} connections`);
}

/** Records a second of processor time, of one that has written as many before: what is compiled first is of no day's rate. */
async function turn(gateway: RaceGateway, writer: Writer): Promise<number> {
  await load(gateway, CONNECTIONS, RACE_PER_SECOND);
  await writer.idle();
  writer.restart();
  await load(gateway, CONNECTIONS, RACE_PER_SECOND);
  const cpuSeconds = await writer.idle();
  await writer.stop();
  return (await writer.lines()) / LOADS / cpuSeconds;
}

async function race(gateway: RaceGateway, folder: string, report: Report): Promise<Spread> {
  const rates: Record<'ours' | 'theirs', number[]> = { ours: [], theirs: [] };
  if (!hasUlogd()) report.note('ulogd2 does not race: Debian packages ulogd2, ulogd2-json');
  for (let round = 0; round <= ROUNDS; round++) {
    report.progress(`round ${round} of ${ROUNDS}`);
    const ours = await Writer.ours(gateway.namespace, join(folder, `ours-${round}`), WRITER_CPU);
    const rate = await turn(gateway, ours);
    if (round === 0) await checkOurs(ours);
    else rates.ours.push(rate);
    if (!hasUlogd()) continue;
    const theirs = await Writer.ulogd(gateway.namespace, join(folder, `ulogd-${round}`), WRITER_CPU);
    const theirRate = await turn(gateway, theirs);
    if (round === 0) await checkTheirs(theirs);
    else rates.theirs.push(theirRate);
  }
  const [ours, theirs] = [spreadOf(rates.ours), rates.theirs.length > 0 ? spreadOf(rates.theirs) : undefined];
  const rows = [['ours, with names', shortSpread(ours)]];
  if (theirs !== undefined) rows.push(['ulogd2', shortSpread(theirs)]);
  report.table('Records a second of one processor', ['', 'of processor time'], rows);
  report.figure('recordsPerSecond', ours);
  if (theirs !== undefined) report.figure('ratioUlogd2', ratioOf(ours, theirs));
  return ours;
}

async function result(writer: Writer): Promise<ReaderResult> {
  await writer.idle();
  return JSON.parse(await writer.stop()) as ReaderResult;
}

/** At the rate that one core can write: nothing may be lost. */
async function atRate(
  gateway: RaceGateway,
  folder: string,
  report: Report,
  perSecond: number,
): Promise<void> {
  const writer = await Writer.ours(gateway.namespace, join(folder, 'rate'), WRITER_CPU);
  let seconds = 0;
  for (let cycle = 0; cycle < RATE_CYCLES; cycle++)
    seconds += await load(gateway, FLOOD_CONNECTIONS, perSecond);
  const told = await result(writer);
  const events = 2 * FLOOD_CONNECTIONS * RATE_CYCLES;
  report.note(
    `At ${Math.round(events / seconds)} events a second: ${told.lost} lost, ${told.dropped} dropped`,
  );
  report.figure('lost', told.lost + told.dropped);
  await checkFlood(writer, told, events);
}

function datagrams(): TestPacket[] {
  return Array.from({ length: PAIRS }, (_, index) => ({
    src: parseAddress(`10.16.${index >> 8}.${index & 0xff}`),
    dst: parseAddress(`203.0.113.${index % 200}`),
    protocol: UDP,
    srcPort: 1_024 + index,
    dstPort: 443,
    tag: 0,
  }));
}

/** Packets of connections that are there, per second of their sender's processor time, while events flood. */
async function forwardUnderFlood(
  gateway: RaceGateway,
  perSecond: number,
): Promise<{ readonly rate: number; readonly events: number }> {
  let [events, isOver] = [0, false];
  const flooding = (async () => {
    while (!isOver) {
      await load(gateway, FLOOD_CONNECTIONS, perSecond);
      events += 2 * FLOOD_CONNECTIONS;
    }
  })();
  const limits = { packets: Number.MAX_SAFE_INTEGER, cpuMs: DATAPATH_MS };
  const { received, sent, cpuSeconds } = await gateway.run('permitted', limits);
  isOver = true;
  await flooding;
  if (received !== sent)
    throw new Error(`Cannot forward under flood: ${received} of ${sent} packets arrived`);
  return { rate: received / cpuSeconds, events };
}

/** At ten times that rate: all is accounted for, and forwarding goes on as without a reader. */
async function flood(gateway: RaceGateway, folder: string, report: Report, perSecond: number): Promise<void> {
  const [read, alone]: [number[], number[]] = [[], []];
  let [made, lost] = [0, 0];
  for (let round = 0; round < FLOOD_ROUNDS; round++) {
    report.progress(`flood ${round + 1} of ${FLOOD_ROUNDS}`);
    alone.push((await forwardUnderFlood(gateway, perSecond)).rate);
    const writer = await Writer.ours(gateway.namespace, join(folder, `flood-${round}`), WRITER_CPU);
    const { rate, events } = await forwardUnderFlood(gateway, perSecond);
    read.push(rate);
    const told = await result(writer);
    made += events;
    lost += told.lost + told.dropped;
    if (told.lost !== told.lostTold)
      throw new Error(`Cannot account: ${told.lost} lost, ${told.lostTold} told`);
    await checkFlood(writer, told, events);
  }
  report.note(`Flood of ${made} events: ${lost} lost or dropped, each accounted for`);
  report.figure('floodLostShare', lost / made);
  report.figure('ratioDatapathUnderFlood', ratioOf(spreadOf(read), spreadOf(alone)));
}

/** Every event was read or lost, and every record written or dropped; what a listing made up for is told beside. */
async function checkFlood(writer: Writer, told: ReaderResult, events: number): Promise<void> {
  let beside = 0;
  const lines = await writer.lines((line) => {
    // A loss, or an end of which nobody told.
    if (
      line.includes('"event":"loss"') ||
      (line.includes('"event":"close"') && !line.includes('"endReason"'))
    )
      beside++;
  });
  if (told.received !== told.written + told.dropped || lines !== told.written)
    throw new Error(`Cannot account for records: ${JSON.stringify(told)}, ${lines} lines`);
  const read = told.received - beside;
  if (read + told.lost < events)
    throw new Error(`Cannot account for events: ${read} read, ${told.lost} lost of ${events}`);
}

async function main(report: Report): Promise<void> {
  // In memory: the race is not one of disks.
  const folder = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'sluice-flows-'));
  const gateway = new RaceGateway();
  try {
    const { namespace } = gateway;
    sysctl(namespace, 'net.netfilter.nf_conntrack_acct', 1);
    sysctl(namespace, 'net.netfilter.nf_conntrack_timestamp', 1);
    namespace.run('nft', ['-f', '-'], { input: CONNTRACK_RULES });
    await gateway.addSender('permitted', datagrams(), {
      program: compileWire(folder),
      folder,
      cpu: LOAD_CPU,
    });
    const { median } = await race(gateway, folder, report);
    await atRate(gateway, folder, report, median);
    await flood(gateway, folder, report, median * FLOOD_FACTOR);
  } finally {
    gateway.remove();
    rmSync(folder, { recursive: true, force: true });
  }
}

export const flows: Bench = {
  question: 'How many flow records can one core write, and what happens beyond?',
  run: main,
};
