// Ours: `reader.js FILE`, in the network namespace whose connections it tells of. As much of the gateway as makes flow
// records: listener, assembly, attribution by a large matcher, a file sink. Says `ready`; at SIGTERM, what it counted.
import { ConntrackTable } from 'sluice-gateway/conntrack/table.js';
import { FlowAssembler } from 'sluice-gateway/flows/assemble.js';
import { sinkSchema } from 'sluice-gateway/flows/sinks/config.js';
import { openSink } from 'sluice-gateway/flows/sinks/open.js';
import { FlowWatch } from 'sluice-gateway/flows/watch.js';
import { createLog } from 'sluice-gateway/log.js';
import { Matcher } from 'sluice-gateway/matcher/matcher.js';
import { parsePrefix } from 'sluice-gateway/net/prefix.js';
import { NETLINK_NETFILTER, NetlinkConnection } from 'sluice-gateway/netlink/connection.js';
import { policyAtScale, unpack } from '../data/policy.js';

/** What the reader says at its end. */
export interface ReaderResult {
  readonly received: number;
  readonly written: number;
  readonly dropped: number;
  /** Events that the kernel could not deliver, by its own count, and by what records tell. */
  readonly lost: number;
  readonly lostTold: number;
}

const SEED = 20_270_131;
const PREFIXES = 100_000;
const FUNCTIONS = 256;
/** As many as a benchmark ever has alive. */
const CONNECTIONS_MAX = 1_000_000;

/** Groups as in a large site, a function for each /24 that the load comes from, and where it goes to. */
function largeMatcher(): Matcher {
  const { groups } = policyAtScale({
    groups: 1_000,
    rules: 1,
    prefixes: PREFIXES,
    overlap: 'realistic',
    seed: SEED,
  });
  const functions = Array.from({ length: FUNCTIONS }, (_, index) => ({
    arn: `arn:aws:lambda:us-east-1:111122223333:function:worker-${index}`,
    accountId: '111122223333',
    region: 'us-east-1',
    identity: 'dedicated-subnet',
    prefixes: [parsePrefix(`10.0.${index}.0/24`)],
  }));
  const named = [...groups].map(([name, packed]) => ({ name, prefixes: unpack(packed) }));
  const serverless = { name: 'serverless', prefixes: functions.flatMap(({ prefixes }) => prefixes) };
  const payments = { name: 'payments', prefixes: [parsePrefix('10.200.0.0/16')] };
  return Matcher.build({ groups: [...named, serverless, payments], functions, excluded: [] });
}

const log = createLog({ level: 'error' });
const sink = await openSink(sinkSchema.parse({ type: 'file', path: process.argv[2]! }), {
  gateway: 'gw-a',
  log,
});
const matcher = largeMatcher();
const rule = { name: 'workers-to-payments', priority: 10, action: 'PERMIT' as const, logging: true };
const assembler = new FlowAssembler({
  gateway: 'gw-a',
  rules: { ruleOf: ({ generation }) => (generation === 0 ? undefined : rule) },
  matcher: () => matcher,
  now: () => new Date(),
  connectionsMax: CONNECTIONS_MAX,
});
const connection = new NetlinkConnection(NETLINK_NETFILTER);
let [lost, lostTold] = [0, 0];
const watch = await FlowWatch.start({
  observers: [],
  logGroup: 1,
  table: new ConntrackTable(connection),
  assembler,
  onPacket: () => undefined,
  onRecord: (record) => {
    lostTold += record.loss?.events ?? 0;
    sink.write(record);
  },
  onLost: (_, events) => {
    lost += events;
  },
  updateSeconds: 0,
  updateRecordsMax: 1,
  log,
});
process.once('SIGTERM', async () => {
  await watch.close();
  connection.close();
  await sink.stop();
  const { received, written, dropped } = sink.counts();
  const result: ReaderResult = { received, written, dropped, lost, lostTold };
  process.stdout.write(`${JSON.stringify(result)}\n`);
});
process.stdout.write('ready\n');
