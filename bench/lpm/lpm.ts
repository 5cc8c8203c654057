import { PrefixTrie } from 'sluice-gateway/matcher/trie.js';
import { type Address, printAddress } from 'sluice-gateway/net/address.js';
import { FAMILIES, type Family } from 'sluice-gateway/net/family.js';
import type { Prefix } from 'sluice-gateway/net/prefix.js';
import { hits, misses } from '../data/addresses.js';
import { makePrefixes, type Shape } from '../data/prefixes.js';
import { seededRandom } from '../data/random.js';
import {
  type Bench,
  type Contestant,
  type Report,
  race,
  ratioOf,
  type Spread,
  shortSpread,
  timed,
} from '../harness.js';
import { canCompile } from '../program.js';
import { contestantsFor, type LpmContestant, type LpmTable, type Query } from './contestants.js';
import { RTE_LPM, rteName } from './rte-lpm.js';

const SEED = 20_270_131;
const SIZES = { '1k': 1_000, '10k': 10_000, '100k': 100_000, '1M': 1_000_000 } as const;
type SizeName = keyof typeof SIZES;
const SHAPES: readonly Shape[] = ['realistic', 'overlapping'];
/** Addresses of each kind; many more than a processor's caches hold answers for. */
const ADDRESSES = 262_144;
/** What the check before the race may take of one contestant's time; ours are checked for every address. */
const CHECK_MS = 500;
const RACE = { rounds: 5, turnMs: 100 };

interface Entry {
  readonly contestant: LpmContestant;
  readonly table: LpmTable;
  readonly buildSeconds: number;
}

/**
 * Holds our answers, those of the first contestant, against those of all others; throws where they differ.
 * Returns for how many addresses each was checked: all, or what a slow one had time for.
 */
function checkAnswers(
  entries: readonly Entry[],
  queries: readonly Query[],
  addresses: readonly Address[],
): readonly number[] {
  const ours = queries[0]!;
  return entries.map(({ contestant }, index) => {
    const end = performance.now() + (contestant.slow ? CHECK_MS : Number.POSITIVE_INFINITY);
    let at = 0;
    for (; at < addresses.length && (at === 0 || performance.now() < end); at++) {
      const expected = contestant.answers === 'longest' ? ours.answer(at) : Number(ours.answer(at) >= 0);
      const found = queries[index]!.answer(at);
      if (found === expected) continue;
      const address = printAddress(addresses[at]!);
      throw new Error(`Cannot race: ${contestant.name} answers ${found} for ${address}, ours ${expected}`);
    }
    return at;
  });
}

type Kind = 'match' | 'miss';
const KINDS: readonly Kind[] = ['match', 'miss'];

interface Table {
  readonly shape: Shape;
  readonly family: Family;
  readonly sizeName: SizeName;
}

async function buildAll(
  prefixes: readonly Prefix[],
  family: Family,
  progress: (text: string) => void,
): Promise<readonly Entry[]> {
  const entries: Entry[] = [];
  for (const contestant of contestantsFor(family)) {
    if (prefixes.length > contestant.sizeMax) continue;
    progress(`building ${contestant.name}`);
    const { result: table, seconds } = await timed(() => contestant.build(prefixes));
    entries.push({ contestant, table, buildSeconds: table.buildSeconds ?? seconds });
  }
  return entries;
}

async function raceTable(report: Report, { shape, family, sizeName }: Table): Promise<void> {
  const label = `${shape} IPv${family}, ${sizeName} prefixes`;
  const progress = (text: string) => report.progress(`${label}: ${text}`);
  progress('making data');
  const size = SIZES[sizeName];
  const prefixes = makePrefixes(shape, family, size, SEED);
  const random = seededRandom(SEED + size);
  const entries = await buildAll(prefixes, family, progress);
  const held = PrefixTrie.build(prefixes);
  const addresses: Readonly<Record<Kind, readonly Address[]>> = {
    match: hits(prefixes, ADDRESSES, random),
    miss: misses(prefixes, ADDRESSES, random, (address) => held.lookup(address) >= 0),
  };

  const rates: Record<Kind, readonly Spread[]> = { match: [], miss: [] };
  const checked: Record<Kind, readonly number[]> = { match: [], miss: [] };
  for (const kind of KINDS) {
    const queries = await Promise.all(entries.map(({ table }) => table.query(addresses[kind])));
    progress(`checking ${kind}`);
    checked[kind] = checkAnswers(entries, queries, addresses[kind]);
    progress(`racing ${kind}`);
    rates[kind] = await race(
      entries.map(({ contestant: { name } }, index): Contestant => ({ name, work: queries[index]!.turn })),
      RACE,
    );
  }
  for (const { table } of entries) await table.close?.();
  report.table(
    label,
    ['', 'match, lookups/s', 'miss, lookups/s', 'build, s', 'bytes/prefix', 'answers checked'],
    entries.map(({ contestant, table, buildSeconds }, index) => [
      contestant.name,
      shortSpread(rates.match[index]!),
      shortSpread(rates.miss[index]!),
      buildSeconds.toFixed(3),
      table.bytes === undefined ? '' : (table.bytes / size).toFixed(1),
      index === 0 ? 'by the others' : String(checked.match[index]! + checked.miss[index]!),
    ]),
  );
  const absent = contestantsFor(family).filter(({ sizeMax }) => size > sizeMax);
  if (absent.length > 0)
    report.note(`  not raced, would not finish: ${absent.map(({ name }) => name).join(', ')}`);
  reportFigures(report, { shape, family, sizeName }, entries, rates);
}

/**
 * Names are completed by what differs from realistic IPv4: `lookupsPerSecond1MOverlapping6`. Where no size is
 * named, 1M is meant: `ratioBlockList`; or with rte_lpm6 100k, the most that it is raced with: `ratioRteLpm6`.
 */
function reportFigures(
  report: Report,
  { shape, family, sizeName }: Table,
  entries: readonly Entry[],
  rates: Readonly<Record<Kind, readonly Spread[]>>,
): void {
  const variant = `${shape === 'realistic' ? '' : 'Overlapping'}${family === 4 ? '' : '6'}`;
  const sized = `${sizeName}${variant}`;
  const suffix = sizeName === '1M' ? variant : sized;
  const rateOf = (name: string) =>
    rates.match[entries.findIndex(({ contestant }) => contestant.name === name)];
  const ours = rates.match[0]!;
  const batch = rateOf('sluice trie, in batches');
  const ratio = (name: string, rate: Spread | undefined, baseline: Spread | undefined) => {
    if (rate !== undefined && baseline !== undefined) report.figure(name, ratioOf(rate, baseline));
  };
  report.figure(`lookupsPerSecond${sized}`, ours);
  report.figure(`missesPerSecond${sized}`, rates.miss[0]!);
  if (batch !== undefined) report.figure(`batchLookupsPerSecond${sized}`, batch);
  ratio(`ratioBlockList${suffix}`, ours, rateOf('net.BlockList'));
  const rte = rteName(family);
  const rteSuffix = family === 6 && sizeName === '100k' ? variant : suffix;
  ratio(`ratioRteLpm${rteSuffix}`, ours, rateOf(rte));
  ratio(`ratioRteLpmBatch${rteSuffix}`, batch, rateOf(rte));
  ratio(`ratioRteLpmBulk${rteSuffix}`, batch ?? ours, rateOf(`${rte}, in bulk`));
  report.figure(`bytesPerPrefix${suffix}`, entries[0]!.table.bytes! / SIZES[sizeName]);
  report.figure(`buildSeconds${suffix}`, entries[0]!.buildSeconds);
}

export const lpm: Bench = {
  question: 'How fast is longest-prefix match, and what does it weigh?',
  run: async (report) => {
    const { rounds, turnMs } = RACE;
    if (!canCompile(RTE_LPM)) report.note(`Without rte_lpm: ${RTE_LPM.debianPackage} is not installed`);
    report.note(`Node ${process.version}, seed ${SEED}, ${ADDRESSES} addresses of each kind`);
    report.note(`${rounds} rounds of ${turnMs} ms: the median, then the lowest and the highest`);
    for (const family of FAMILIES) {
      for (const shape of SHAPES) {
        for (const sizeName of Object.keys(SIZES) as SizeName[])
          await raceTable(report, { shape, family, sizeName });
      }
    }
  },
};
