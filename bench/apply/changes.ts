import { readFileSync } from 'node:fs';
import { deserialize } from 'node:v8';
import type { Prefix } from 'sluice-gateway/net/prefix.js';
import { NETLINK_NETFILTER, NetlinkConnection } from 'sluice-gateway/netlink/connection.js';
import { Applier } from 'sluice-gateway/nft/apply.js';
import { NftKernel } from 'sluice-gateway/nft/kernel.js';
import { Compiler, judged, programOf } from 'sluice-gateway/policy/compile.js';
import { type PolicyInForce, policyInForce, RuleNumbers } from 'sluice-gateway/policy/in-force.js';
import type { Policy } from 'sluice-gateway/policy/model.js';
import { type PolicyAtScale, unpack } from '../data/policy.js';
import { seededRandom } from '../data/random.js';
import { timed } from '../harness.js';

/** As a snapshot's bodies are cut. */
const PART_PREFIXES = 4_096;
const DELTAS = 300;
const RULE_CHANGES = 30;
const interfaces = { lambda: ['lam0'], egress: ['wan0'], inputIcmp: false };

/** What `changes.js FILE` found, as JSON on standard output; milliseconds, one a change. */
export interface ChangesResult {
  readonly intervals: number;
  readonly compileSeconds: number;
  readonly loadSeconds: number;
  /** A prefix comes or goes: compiled, and in force in the kernel. */
  readonly deltaMs: readonly number[];
  /** Those of them that were no edit in place. */
  readonly rebuilt: number;
  readonly ruleChangeMs: readonly number[];
}

/** The product's path from a changed snapshot to the kernel, as the reconciler goes it. */
class Path {
  readonly #applier: Applier;
  readonly #compiler = new Compiler('bench');
  readonly #numbers = new RuleNumbers();
  #generation = 1;
  readonly groups: Map<string, readonly (readonly Prefix[])[]>;

  constructor(kernel: NftKernel, groups: Map<string, readonly (readonly Prefix[])[]>) {
    this.#applier = new Applier(kernel);
    this.groups = groups;
  }

  inForce(policy: Policy): PolicyInForce {
    return policyInForce(policy, new Date(0), this.#numbers);
  }

  compile(policy: PolicyInForce) {
    return this.#compiler.compile({ policy, groups: this.groups, excluded: [] });
  }

  /** Until the change holds for every packet; gives whether it was made in place. */
  async enforce({ compiled, edits, added, effect }: ReturnType<Path['compile']>): Promise<boolean> {
    if (edits !== undefined) {
      await this.#applier.edit(edits, effect.revokes ? judged(this.#generation) : undefined, added);
      return true;
    }
    await this.#applier.apply(programOf(compiled, interfaces, ++this.#generation));
    return false;
  }

  /** What is left to do behind it: live connections get the next generation, the old content goes. */
  async settle({ compiled }: ReturnType<Path['compile']>): Promise<void> {
    await this.#applier.apply(programOf(compiled, interfaces, ++this.#generation));
    await this.#applier.collect(0);
  }
}

function partsOf(prefixes: readonly Prefix[]): readonly (readonly Prefix[])[] {
  return Array.from({ length: Math.ceil(prefixes.length / PART_PREFIXES) }, (_, index) =>
    prefixes.slice(index * PART_PREFIXES, (index + 1) * PART_PREFIXES),
  );
}

async function measure(file: string, kernel: NftKernel): Promise<ChangesResult> {
  const { groups, policy } = deserialize(readFileSync(file)) as PolicyAtScale;
  const path = new Path(kernel, new Map([...groups].map(([name, of]) => [name, partsOf(unpack(of))])));
  const random = seededRandom(1);
  const start = path.inForce(policy);
  const { result: first, seconds: compileSeconds } = await timed(() => path.compile(start));
  const { seconds: loadSeconds } = await timed(() => path.enforce(first));

  const deltaMs: number[] = [];
  let rebuilt = 0;
  const used = [...new Set(policy.rules.flatMap(({ dst }) => dst))].filter((name) => name !== 'Anywhere');
  for (let delta = 0; delta < DELTAS; delta++) {
    const name = random.pick(used);
    const before = path.groups.get(name)!;
    const index = random.below(before.length);
    const part = before[index]!;
    const without = part.toSpliced(random.below(part.length), 1);
    for (const parts of [before.with(index, without), before]) {
      path.groups.set(name, parts);
      const startMs = performance.now();
      const compilation = path.compile(start);
      if (!(await path.enforce(compilation))) rebuilt++;
      deltaMs.push(performance.now() - startMs);
      await path.settle(compilation);
    }
  }

  const ruleChangeMs: number[] = [];
  for (let change = 0; change < RULE_CHANGES; change++) {
    const at = random.below(policy.rules.length);
    const port = 20_000 + change;
    const rules = policy.rules.with(at, {
      ...policy.rules[at]!,
      protocol: 'TCP',
      portRanges: [{ lo: port, hi: port }],
    });
    const startMs = performance.now();
    const compilation = path.compile(path.inForce({ ...policy, rules }));
    await path.enforce(compilation);
    ruleChangeMs.push(performance.now() - startMs);
    await path.settle(compilation);
  }
  const intervals = first.compiled.maps
    .filter(({ interval }) => interval)
    .reduce((sum, { elements }) => sum + elements.length, 0);
  return { intervals, compileSeconds, loadSeconds, deltaMs, rebuilt, ruleChangeMs };
}

const connection = new NetlinkConnection(NETLINK_NETFILTER);
try {
  const result = await measure(process.argv[2]!, new NftKernel(connection));
  process.stdout.write(`${JSON.stringify(result)}\n`);
} finally {
  connection.close();
}
