import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { NETLINK_NETFILTER, NetlinkConnection } from 'sluice-gateway/netlink/connection.js';
import { NftKernel } from 'sluice-gateway/nft/kernel.js';
import { makePrefixes } from '../data/prefixes.js';
import { timed } from '../harness.js';
import { settledKernelBytes } from '../memory-use.js';
import { runFloor, writeFloorFile } from './floor.js';
import {
  clearTable,
  compileOurs,
  elementMaps,
  intervalsOf,
  type OurProgram,
  ourLoader,
  printOurs,
} from './ours.js';

/** What the worker is to do, as JSON in its one argument. */
export interface ApplyJob {
  readonly prefixes: number;
  readonly rounds: number;
  /** Compares what was loaded, by listing it, which is quadratic. */
  readonly check: boolean;
  /** The compiled floor.c, where there is one. */
  readonly floor: string | undefined;
}

/** What it found, as JSON on standard output. Seconds are one a round, the contestants having taken turns. */
export interface ApplyResult {
  readonly intervals: number;
  readonly maps: number;
  readonly compileSeconds: number;
  readonly oursSeconds: readonly number[];
  readonly nftSeconds: readonly number[];
  readonly floorSeconds: readonly number[];
}

const SEED = 20_270_131;
const GROUPS = 4;

/** A policy of a few rules over groups that share the prefixes between them, as a program. */
function makeProgram(prefixCount: number): OurProgram {
  const prefixes = makePrefixes('realistic', 4, prefixCount, SEED);
  const names = Array.from({ length: GROUPS }, (_, index) => `feed ${index}`);
  const groups = new Map(
    names.map((name, index) => [name, prefixes.filter((_, at) => at % GROUPS === index)]),
  );
  const rules = names.map(
    (name, priority) =>
      ({
        name: `to ${name}`,
        priority,
        action: 'PERMIT',
        src: [names[0]!],
        dst: [name],
        protocol: 'TCP',
        portRanges: [{ lo: 443, hi: 443 }],
        logging: false,
        enforcement: 'ENFORCE',
      }) as const,
  );
  return compileOurs({ rules, defaultAction: { action: 'DENY', logging: false } }, groups, '');
}

function nft(...args: string[]): string {
  const { status, stdout, stderr } = spawnSync('nft', args, { maxBuffer: 1 << 30 });
  if (status !== 0) throw new Error(`Cannot run nft ${args[0]}: ${stderr.toString().slice(0, 500)}`);
  return stdout.toString();
}

/** What nft lists of the maps by these names. */
function listMaps(names: ReadonlySet<string>): string {
  const blocks = nft('list', 'table', 'inet', 'sluice').split(/^(?=\tmap )/m);
  return blocks
    .filter((block) => names.has(block.split(' ')[1]!))
    .map((block) => block.slice(0, block.indexOf('\n\t}')))
    .join('\n');
}

async function run({ prefixes, rounds, check, floor }: ApplyJob, folder: string): Promise<ApplyResult> {
  const { result: program, seconds: compileSeconds } = await timed(() => makeProgram(prefixes));
  const maps = elementMaps(program);
  const text = join(folder, 'program.nft');
  const elements = join(folder, 'elements');
  writeFileSync(text, printOurs(program));
  writeFloorFile(elements, maps);
  const names = new Set(maps.map(({ name }) => name));
  const connection = new NetlinkConnection(NETLINK_NETFILTER);
  const kernel = new NftKernel(connection);
  const contestants = [
    async () => (await timed(() => ourLoader(kernel).load(program))).seconds,
    async () => (await timed(() => nft('-f', text))).seconds,
    ...(floor === undefined ? [] : [() => runFloor(floor, elements)]),
  ];
  const seconds = contestants.map((): number[] => []);
  try {
    for (let round = 0; round < rounds; round++) {
      const listed = new Set<string>();
      for (const [index, contestant] of contestants.entries()) {
        seconds[index]!.push(await contestant());
        if (check) listed.add(listMaps(names));
        await clearTable(kernel);
        await settledKernelBytes();
      }
      if (listed.size > 1) throw new Error('Cannot race: what the contestants load is not the same');
    }
  } finally {
    connection.close();
  }
  const [oursSeconds, nftSeconds, floorSeconds] = seconds;
  return {
    intervals: intervalsOf(program),
    maps: maps.length,
    compileSeconds,
    oursSeconds: oursSeconds!,
    nftSeconds: nftSeconds!,
    floorSeconds: floorSeconds ?? [],
  };
}

/** `worker.js JOB`, in a network namespace of its own. */
const folder = mkdtempSync(join(tmpdir(), 'sluice-bench-'));
try {
  process.stdout.write(`${JSON.stringify(await run(JSON.parse(process.argv[2]!) as ApplyJob, folder))}\n`);
} finally {
  rmSync(folder, { recursive: true });
}
