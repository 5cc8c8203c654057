import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { deserialize } from 'node:v8';
import { Matcher } from 'sluice-gateway/matcher/matcher.js';
import { NETLINK_NETFILTER, NetlinkConnection } from 'sluice-gateway/netlink/connection.js';
import { NftKernel } from 'sluice-gateway/nft/kernel.js';
import { compileOurs, intervalsOf, ourLoader } from '../apply/ours.js';
import { type PolicyAtScale, unpack } from '../data/policy.js';
import { settledKernelBytes } from '../kernel-memory.js';

/** What the worker says when it has reached the next stage: one JSON object a line. */
export type MemoryStage =
  | { readonly stage: 'started'; readonly kernelBytes: number }
  | {
      readonly stage: 'settled';
      readonly kernelBytes: number;
      readonly rssBytes: number;
      readonly intervals: number;
    }
  | { readonly stage: 'reloaded' };

const RSS_POLL_MS = 1000;
/** V8 gives memory back when it has been idle for some seconds. */
const RSS_SETTLED_READINGS = 8;
const RSS_SETTLED_BYTES = 1 << 20;
const RSS_SETTLE_MS_MAX = 60_000;

async function settledRss(): Promise<number> {
  const readings: number[] = [];
  for (const end = performance.now() + RSS_SETTLE_MS_MAX; performance.now() < end; await sleep(RSS_POLL_MS)) {
    readings.push(process.memoryUsage.rss());
    const last = readings.slice(-RSS_SETTLED_READINGS);
    if (last.length === RSS_SETTLED_READINGS && Math.max(...last) - Math.min(...last) < RSS_SETTLED_BYTES)
      break;
  }
  return readings.at(-1)!;
}

/** What a gateway makes of a snapshot: a matcher and a program. */
function prepare(path: string, epoch: string) {
  const { groups, policy } = deserialize(readFileSync(path)) as PolicyAtScale;
  const prefixes = new Map([...groups].map(([name, packed]) => [name, unpack(packed)]));
  const named = [...prefixes].map(([name, list]) => ({ name, prefixes: list }));
  const matcher = Matcher.build({ groups: named, functions: [], excluded: [] });
  return { matcher, program: compileOurs(policy, prefixes, epoch) };
}

const say = (stage: MemoryStage) => process.stdout.write(`${JSON.stringify(stage)}\n`);

/** `worker.js FILE`, in a network namespace of its own: a policy loaded, settled, and loaded anew beside itself. */
const connection = new NetlinkConnection(NETLINK_NETFILTER);
const loader = ourLoader(new NftKernel(connection));
say({ stage: 'started', kernelBytes: await settledKernelBytes() });
const held = prepare(process.argv[2]!, 'first');
await loader.load(held.program);
const kernelBytes = await settledKernelBytes();
const rssBytes = await settledRss();
say({ stage: 'settled', kernelBytes, rssBytes, intervals: intervalsOf(held.program) });
const next = prepare(process.argv[2]!, 'second');
await loader.load(next.program);
await loader.collect();
say({ stage: 'reloaded' });
connection.close();
// Named here so that both are alive until the reload is through, as they are in a gateway.
process.exitCode = held.matcher === next.matcher ? 1 : 0;
