import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { NETLINK_NETFILTER, NetlinkConnection } from 'sluice-gateway/netlink/connection.js';
import { Applier } from 'sluice-gateway/nft/apply.js';
import { Batch } from 'sluice-gateway/nft/batch.js';
import { NftKernel } from 'sluice-gateway/nft/kernel.js';
import { printProgram } from 'sluice-gateway/nft/print.js';
import type { Program } from 'sluice-gateway/nft/program.js';
import { compilePolicy, programOf } from 'sluice-gateway/policy/compile.js';
import { policyInForce } from 'sluice-gateway/policy/in-force.js';
import { makePrefixes } from '../data/prefixes.js';

/** What one run of the worker found, as JSON on standard output. */
export interface ApplyResult {
  readonly intervals: number;
  readonly compileSeconds: number;
  /** One a round, the contestants having taken turns. */
  readonly oursSeconds: readonly number[];
  readonly nftSeconds: readonly number[];
}

const SEED = 20_270_131;
const GROUPS = 4;
const interfaces = { lambda: ['lam0'], egress: ['wan0'], inputIcmp: false };

/** A policy of a few rules over groups that share the prefixes between them, as a program. */
function makeProgram(prefixCount: number): { program: Program; seconds: number } {
  const prefixes = makePrefixes('realistic', 4, prefixCount, SEED);
  const names = Array.from({ length: GROUPS }, (_, index) => `feed ${index}`);
  const groups = new Map(
    names.map((name, index) => [name, prefixes.filter((_, at) => at % GROUPS === index)]),
  );
  const policy = policyInForce(
    {
      rules: names.map((name, priority) => ({
        name: `to ${name}`,
        priority,
        action: 'PERMIT',
        src: [names[0]!],
        dst: [name],
        protocol: 'TCP',
        portRanges: [{ lo: 443, hi: 443 }],
        logging: false,
        enforcement: 'ENFORCE',
      })),
      defaultAction: { action: 'DENY', logging: false },
    },
    new Date(0),
  );
  const start = performance.now();
  const program = programOf(compilePolicy({ policy, groups, excluded: [], epoch: '' }), interfaces, 1);
  return { program, seconds: (performance.now() - start) / 1000 };
}

function nft(...args: string[]): string {
  const { status, stdout, stderr } = spawnSync('nft', args, { maxBuffer: 1 << 30 });
  if (status !== 0) throw new Error(`Cannot run nft ${args[0]}: ${stderr.toString().slice(0, 500)}`);
  return stdout.toString();
}

async function measure(job: () => Promise<unknown> | unknown): Promise<number> {
  const start = performance.now();
  await job();
  return (performance.now() - start) / 1000;
}

/** `worker.js PREFIXES ROUNDS check|trust`, in a network namespace of its own. */
const [prefixCount, rounds, mode] = process.argv.slice(2) as [string, string, string];
const { program, seconds: compileSeconds } = makeProgram(Number(prefixCount));
const folder = mkdtempSync(join(tmpdir(), 'sluice-bench-'));
const file = join(folder, 'program.nft');
const connection = new NetlinkConnection(NETLINK_NETFILTER);
const kernel = new NftKernel(connection);
const oursSeconds: number[] = [];
const nftSeconds: number[] = [];
const clear = () => kernel.commit(new Batch().addTable().deleteTable());
try {
  writeFileSync(file, printProgram(program));
  for (let round = 0; round < Number(rounds); round++) {
    oursSeconds.push(await measure(() => new Applier(kernel).apply(program)));
    const ours = mode === 'check' ? nft('list', 'table', 'inet', 'sluice') : '';
    await clear();
    nftSeconds.push(await measure(() => nft('-f', file)));
    if (mode === 'check' && ours !== nft('list', 'table', 'inet', 'sluice')) {
      throw new Error('Cannot race: what we load is not what nft loads');
    }
    await clear();
  }
} finally {
  rmSync(folder, { recursive: true });
  connection.close();
}
const intervals = program.maps
  .filter((map) => map.interval)
  .reduce((sum, map) => sum + map.elements.length, 0);
process.stdout.write(
  `${JSON.stringify({ intervals, compileSeconds, oursSeconds, nftSeconds } satisfies ApplyResult)}\n`,
);
