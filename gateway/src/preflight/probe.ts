import { AF_UNSPEC, NLM_F_ACK, NLM_F_REQUEST } from '../conntrack/constants.js';
import { parseAddress } from '../net/address.js';
import { FAMILIES } from '../net/family.js';
import { again } from '../netlink/again.js';
import { NETLINK_NETFILTER, NETLINK_ROUTE, NetlinkConnection } from '../netlink/connection.js';
import { isBusy, isPermissionDenied, NetlinkError } from '../netlink/error.js';
import { Attributes } from '../netlink/reader.js';
import { MessageWriter } from '../netlink/writer.js';
import { encodeBind } from '../nflog/encode.js';
import { NFT_MSG, TABLE_OWNER, TABLE_PERSIST } from '../nft/batch.js';
import { limitData } from '../nft/expressions.js';
import {
  NFT_SET_EVAL,
  NFT_SET_INTERVAL,
  NFT_SET_MAP,
  NFT_SET_OBJECT,
  NFT_SET_TIMEOUT,
  OBJECT_COUNTER,
  OBJECT_LIMIT,
} from '../nft/set.js';
import { accept, counter, match, type Rule } from '../nft/statement.js';
import { encodeDumpRules } from '../route/rule.js';
import type { Finding } from './finding.js';
import * as s from './scratch.js';

/** The sockets that probes ask, closed by who opened them. */
export interface Sockets {
  readonly netfilter: NetlinkConnection;
  readonly routing: NetlinkConnection;
}

/** One thing that the kernel has or lacks. */
export interface Feature {
  readonly name: string;
  /** The program does not work without it. */
  readonly isNeeded: boolean;
  /** Kernel option and module that bring it. */
  readonly from: string;
  readonly use: string;
  /** Rejects with NetlinkError, or gives false, where the kernel lacks it. */
  readonly probe: (sockets: Sockets) => Promise<unknown>;
}

/** What the configuration asks of the kernel beyond what every gateway needs. */
export interface Needs {
  readonly snat?: 'masquerade' | 'address';
}

const NFGENMSG_BYTES = 4;
/** `NFTA_SET_COUNT`, and `IPCTNL_MSG_CT_GET_STATS` with its subsystem. */
const NFTA_SET_COUNT = 20;
const CT_GET_STATS = (1 << 8) | 5;
/** A log group that nothing writes to. */
const SCRATCH_LOG_GROUP = 0xfffe;
const REG_1 = 1;

const MARKS: s.ScratchSet = { name: 'marks', flags: NFT_SET_MAP | NFT_SET_INTERVAL, data: 'mark' };
const VERDICTS: s.ScratchSet = { name: 'verdicts', flags: NFT_SET_MAP, data: 'verdict' };
const RATES: s.ScratchSet = { name: 'rates', flags: NFT_SET_TIMEOUT | NFT_SET_EVAL };
const OBJECTS: s.ScratchSet = { name: 'objects', flags: NFT_SET_OBJECT, data: { object: OBJECT_COUNTER } };

/** Rules in a chain of a hook, tried in the words of the program. */
const rules =
  (base: s.ScratchBase, ...all: readonly Rule[]) =>
  ({ netfilter }: Sockets) => {
    const scratch = new s.Scratch().chain('chain', base);
    for (const rule of all) scratch.rule('chain', rule);
    return scratch.commit(netfilter);
  };

const map =
  (set: s.ScratchSet, rule: Rule) =>
  ({ netfilter }: Sockets) =>
    new s.Scratch().set(set).element(set).chain('chain').rule('chain', rule).commit(netfilter);

const PREROUTING: s.ScratchBase = { type: 'filter', hook: 'prerouting' };
const FORWARD: s.ScratchBase = { type: 'filter', hook: 'forward' };
const POSTROUTING: s.ScratchBase = { type: 'nat', hook: 'postrouting' };

async function probeRateSet({ netfilter }: Sockets): Promise<void> {
  const rate = { kind: 'matchOverRate', fields: ['ctOriginalSource4'], set: RATES.name } as const;
  await new s.Scratch()
    .set(RATES)
    .chain('chain')
    .rule('chain', [{ ...rate, perSecond: 1, burstPackets: 1 }])
    .commit(netfilter);
}

/** `NFTA_OBJREF_SET_SREG` 3, `SET_NAME` 4: `counter name ip saddr map @objects`. */
async function probeObjectMap({ netfilter }: Sockets): Promise<void> {
  await new s.Scratch()
    .object('object', OBJECT_COUNTER, () => {})
    .set(OBJECTS)
    .element(OBJECTS)
    .chain('chain')
    .rule('chain', (writer) => {
      s.expression(writer, 'ct', () =>
        writer.attributeU32be(1, REG_1).attributeU32be(2, 19).attributeU8(3, 0),
      );
      s.expression(writer, 'objref', () => writer.attributeU32be(3, REG_1).attributeString(4, OBJECTS.name));
    })
    .commit(netfilter);
}

async function probeSetCount({ netfilter }: Sockets): Promise<boolean> {
  const echoed = await new s.Scratch().set(MARKS, true).commit(netfilter);
  return echoed.some(
    ({ type, payload }) =>
      type === NFT_MSG.newSet && new Attributes(payload, NFGENMSG_BYTES).has(NFTA_SET_COUNT),
  );
}

async function probeConntrackNetlink({ netfilter }: Sockets): Promise<void> {
  const writer = new MessageWriter()
    .beginMessage({ type: CT_GET_STATS, flags: NLM_F_REQUEST | NLM_F_ACK, sequence: 1 })
    .netfilterHeader(AF_UNSPEC)
    .endMessage();
  const operation = () => 'read connection tracking';
  await netfilter.request({ bytes: writer.bytes(), lastSequence: 1, operation });
}

/** Binds a group for a moment; that another holds it shows as well that there is such a thing. */
async function probeLogGroup(conntrack: boolean): Promise<void> {
  const connection = new NetlinkConnection(NETLINK_NETFILTER);
  const writer = new MessageWriter();
  const sizes = { copyBytes: 64, bufferBytes: 4096, thresholdPackets: 1, timeoutMs: 10 };
  encodeBind(writer, { sequence: 1, group: SCRATCH_LOG_GROUP, conntrack, ...sizes });
  const operation = () => `bind log group ${SCRATCH_LOG_GROUP}`;
  try {
    await connection.request({ bytes: writer.bytes(), lastSequence: 1, operation });
  } catch (error) {
    if (!isBusy(error) && !isPermissionDenied(error)) throw error;
  } finally {
    connection.close();
  }
}

async function probeRoutingRules({ routing }: Sockets): Promise<void> {
  for (const family of FAMILIES) {
    const writer = new MessageWriter();
    encodeDumpRules(writer, 1, family);
    const operation = () => `list IPv${family} routing rules`;
    await routing.request({ bytes: writer.bytes(), lastSequence: 1, operation });
  }
}

/** What the program is made of. */
function programFeatures({ snat }: Needs): Feature[] {
  const needed = (name: string, from: string, use: string, probe: Feature['probe'], isNeeded = true) => ({
    ...{ name, from, use, probe, isNeeded },
  });
  const log = { kind: 'log', prefix: 'probe', group: SCRATCH_LOG_GROUP, snaplenBytes: 64 } as const;
  return [
    needed('inet', 'CONFIG_NF_TABLES_INET, module nf_tables', 'the table', ({ netfilter }) =>
      new s.Scratch().chain('prerouting', PREROUTING).chain('forward', FORWARD).commit(netfilter),
    ),
    needed(
      'connection',
      'CONFIG_NFT_CT and CONFIG_NF_CONNTRACK_MARK, module nft_ct',
      'state, mark and original addresses of connections',
      rules(
        FORWARD,
        [{ kind: 'matchState', states: ['new'] }, match('ctOriginalDestinationPort', 0)],
        [match('ctMark', 0), { kind: 'setCtMarkFromMark', mask: 0xff, value: 1 }, accept],
      ),
    ),
    needed(
      'interval_map',
      'CONFIG_NF_TABLES, module nf_tables',
      'address to class',
      map(MARKS, [{ kind: 'setMarkFromMap', field: 'ctOriginalSource4', map: MARKS.name }]),
    ),
    needed(
      'verdict_map',
      'CONFIG_NF_TABLES, module nf_tables',
      'class to chain',
      map(VERDICTS, [{ kind: 'verdictMap', field: 'ctOriginalSource4', map: VERDICTS.name }]),
    ),
    needed(
      'named_counter',
      'CONFIG_NFT_COUNTER and CONFIG_NFT_OBJREF, module nft_objref',
      'counts of decisions and drops',
      ({ netfilter }) =>
        new s.Scratch()
          .object('object', OBJECT_COUNTER, () => {})
          .chain('chain')
          .rule('chain', [counter('object')])
          .commit(netfilter),
    ),
    needed(
      'fib',
      'CONFIG_NFT_FIB_INET, module nft_fib_inet',
      'the check of the reverse path',
      rules(PREROUTING, [match('fibSourceOifname', 'lo')], [{ kind: 'matchNoReversePath' }]),
    ),
    needed(
      'limit',
      'CONFIG_NFT_LIMIT, module nft_limit',
      'bounds on what is logged',
      rules(FORWARD, [{ kind: 'limit', perSecond: 1, burstPackets: 1 }]),
    ),
    needed(
      'counter_map',
      'CONFIG_NFT_OBJREF, module nft_objref',
      'one rule that counts for all decisions',
      probeObjectMap,
    ),
    needed('limit_object', 'CONFIG_NFT_LIMIT, module nft_limit', 'a bound for each rule', ({ netfilter }) =>
      new s.Scratch().object('object', OBJECT_LIMIT, (writer) => limitData(writer, 1, 1)).commit(netfilter),
    ),
    needed(
      'rate_set',
      'CONFIG_NFT_LIMIT, module nft_limit',
      'limits of each source, on new connections and on records of denied ones',
      probeRateSet,
    ),
    needed('log', 'CONFIG_NFT_LOG, module nft_log', 'records of denied connections', rules(FORWARD, [log])),
    needed(
      'reject',
      'CONFIG_NFT_REJECT_INET, module nft_reject_inet',
      'the action REJECT',
      rules(FORWARD, [match('l4proto', 6), { kind: 'rejectTcpReset' }], [{ kind: 'rejectAdminProhibited' }]),
    ),
    needed(
      'masquerade',
      'CONFIG_NFT_MASQ, modules nft_masq and nft_chain_nat',
      'snat to masquerade',
      rules(POSTROUTING, [{ kind: 'masquerade' }]),
      snat === 'masquerade',
    ),
    needed(
      'snat',
      'CONFIG_NFT_NAT, modules nft_nat and nft_chain_nat',
      'snat to an address',
      rules(
        POSTROUTING,
        ...['192.0.2.1', '2001:db8::1'].map((to): Rule => [{ kind: 'snat', to: parseAddress(to) }]),
      ),
      snat === 'address',
    ),
  ];
}

/** What stands around the program: events, records, the guard. */
const SURROUNDINGS: readonly Feature[] = [
  {
    name: 'conntrack_netlink',
    isNeeded: true,
    from: 'CONFIG_NF_CT_NETLINK, module nf_conntrack_netlink',
    use: 'flow records and the end of connections that are no longer permitted',
    probe: probeConntrackNetlink,
  },
  {
    name: 'routing_rules',
    isNeeded: true,
    from: 'CONFIG_IP_MULTIPLE_TABLES and CONFIG_IPV6_MULTIPLE_TABLES',
    use: 'the guard, without which nothing stops packets when the table is gone',
    probe: probeRoutingRules,
  },
  {
    name: 'nflog',
    isNeeded: true,
    from: 'CONFIG_NETFILTER_NETLINK_LOG, module nfnetlink_log',
    use: 'records of denied connections',
    probe: () => probeLogGroup(false),
  },
  {
    name: 'nflog_connection',
    isNeeded: false,
    from: 'CONFIG_NETFILTER_NETLINK_GLUE_CT',
    use: 'logged packets that come with their connection',
    probe: () => probeLogGroup(true),
  },
];

/** What the kernel may have and no part of the program depends on. */
const OPTIONAL: readonly Feature[] = [
  {
    name: 'table_owner_persist',
    isNeeded: false,
    from: 'Linux 6.9',
    use: 'a table that others can not change (never owner alone: the kernel would delete it with its owner)',
    probe: ({ netfilter }) => new s.Scratch(TABLE_OWNER | TABLE_PERSIST).commit(netfilter),
  },
  {
    name: 'set_element_count',
    isNeeded: false,
    from: 'a kernel that tells NFTA_SET_COUNT',
    use: 'the size of a set without a listing of it',
    probe: probeSetCount,
  },
];

/** Everything that preflight tries, in the order of the report. */
export const features = (needs: Needs): readonly Feature[] => [
  ...programFeatures(needs),
  ...SURROUNDINGS,
  ...OPTIONAL,
];

async function findFeature(feature: Feature, sockets: Sockets): Promise<Finding> {
  const { name, isNeeded, from, use } = feature;
  const found = { name: `feature.${name}`, ...(isNeeded && { expected: 'yes' }) };
  let why = '';
  try {
    if ((await again(() => feature.probe(sockets))) !== false)
      return { ...found, level: 'ok', value: 'yes', detail: use };
  } catch (error) {
    if (!(error instanceof NetlinkError)) throw error;
    why = `: ${error.message}`;
  }
  const detail = `the kernel lacks it${why}; it comes with ${from}, and is for ${use}`;
  return { ...found, level: isNeeded ? 'error' : 'info', value: 'no', detail };
}

/**
 * Tries features by transactions in a dormant scratch table that each of them deletes itself; one that an earlier
 * process left is removed. Needs CAP_NET_ADMIN: rejects with NetlinkError EPERM without. Cost: a millisecond each.
 */
export async function probeFeatures(wanted: readonly Feature[]): Promise<Finding[]> {
  const sockets: Sockets = {
    netfilter: new NetlinkConnection(NETLINK_NETFILTER),
    routing: new NetlinkConnection(NETLINK_ROUTE),
  };
  try {
    try {
      await new s.Scratch().commit(sockets.netfilter);
    } catch (error) {
      if (isPermissionDenied(error)) throw error;
    }
    const findings: Finding[] = [];
    for (const feature of wanted) findings.push(await findFeature(feature, sockets));
    return findings;
  } finally {
    sockets.netfilter.close();
    sockets.routing.close();
  }
}
