import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { AF_UNSPEC, NLM_F_DUMP, NLM_F_REQUEST } from '../conntrack/constants.js';
import { again } from '../netlink/again.js';
import type { NetlinkConnection } from '../netlink/connection.js';
import { Attributes } from '../netlink/reader.js';
import { MessageWriter } from '../netlink/writer.js';
import { NFPROTO_INET, NFT_MSG } from '../nft/batch.js';
import { type BaseChain, TABLE } from '../nft/program.js';
import type { Finding, Level } from './finding.js';
import { SCRATCH_TABLE } from './scratch.js';

/** `NFT_MSG_GETRULE`, `NFT_MSG_GETFLOWTABLE` with their subsystem. */
const GET_RULE = (10 << 8) | 7;
const GET_FLOWTABLE = (10 << 8) | 23;
const NFGENMSG_BYTES = 4;
/** Names of chains that one finding shows. */
const CHAINS_SHOWN_MAX = 3;

/** `NFPROTO_*`. */
const FAMILY_NAMES = new Map([
  [1, 'inet'],
  [2, 'ip'],
  [3, 'arp'],
  [5, 'netdev'],
  [7, 'bridge'],
  [10, 'ip6'],
]);
/** Those whose hooks are ours too. */
const OUR_FAMILIES = ['inet', 'ip', 'ip6'];
/** `enum nf_inet_hooks`. */
const HOOKS = ['prerouting', 'input', 'forward', 'output', 'postrouting', 'ingress'] as const;

/** `NFT_META_MARK`, `NFT_CT_MARK`. */
const META_MARK = 3;
const CT_MARK = 3;
/** `XT_CONNMARK_RESTORE` is the one mode that only reads the connection's mark; `XT_CT_NOTRACK`. */
const CONNMARK_RESTORE = 2;
const CT_TARGET_NOTRACK = 1;

/** What a table of others does that bears on ours, and how much. */
export const FOREIGN_KINDS = {
  ct_mark: 'error',
  flowtable: 'warning',
  notrack: 'warning',
  nat: 'warning',
  drop: 'warning',
  same_priority: 'warning',
  packet_mark: 'info',
  hook: 'info',
} as const satisfies Record<string, Level>;
export type ForeignKind = keyof typeof FOREIGN_KINDS;

/** What it does, and what that means for us. */
const DETAILS: Readonly<Record<ForeignKind, readonly [does: string, so: string]>> = {
  ct_mark: [
    'writes connection marks',
    "they are Sluice's alone, and a foreign one could permit what policy denies; remove those rules, " +
      'or have them use ct label or packet marks instead',
  ],
  flowtable: [
    'offloads connections past the forward hook',
    'one that is no longer permitted goes on; remove its flow rules',
  ],
  notrack: ['takes packets out of connection tracking', 'those are dropped here as invalid'],
  nat: ['translates addresses', 'it may do so before or instead of Sluice; policy judges the original ones'],
  drop: ['drops what it does not accept by itself', 'what Sluice permits needs its acceptance too'],
  same_priority: [
    'hooks at a priority of ours',
    'which of the two sees a packet first depends on which was there first',
  ],
  packet_mark: ['writes packet marks', 'it must leave bits 31 and 30 as they are, or nothing passes'],
  hook: ['hooks where Sluice does', 'it sees the same packets before or after'],
};

/** A table by family and name, `inet other`. */
type TableName = string;

/** What tables of others do: for each kind the tables, and the chains in which they do it. */
export type Foreign = ReadonlyMap<ForeignKind, ReadonlyMap<TableName, ReadonlySet<string>>>;

interface ForeignChain {
  readonly table: TableName;
  readonly name: string;
  readonly hook: (typeof HOOKS)[number] | undefined;
  readonly priority: number;
  readonly drops: boolean;
  readonly isNat: boolean;
}

type Use = (kind: ForeignKind, table: TableName, chain: string) => void;

/** Whether a table is ours, or the one in which we try things. */
export const isOurs = (family: number, table: string | undefined): boolean =>
  family === NFPROTO_INET && (table === TABLE || table === SCRATCH_TABLE);

const tableName = (family: number, table: string): TableName =>
  `${FAMILY_NAMES.get(family) ?? family} ${table}`;

/** Some expressions have none, as `notrack`. */
const NO_DATA = new Attributes(new Uint8Array());

/** What an iptables target does (`NFTA_TARGET_NAME` 1, `REV` 2, `INFO` 3): CONNMARK, MARK, CT, … */
function targetKind(data: Attributes): ForeignKind | undefined {
  const info = data.bytes(3) ?? new Uint8Array();
  switch (data.string(1)) {
    case 'CONNMARK': {
      // Three marks, then `__u8 mode`; from revision 2 `shift_dir` and `shift_bits` stand before it.
      const mode = info[(data.u32be(2) ?? 0) >= 2 ? 14 : 12];
      return mode === CONNMARK_RESTORE ? 'packet_mark' : 'ct_mark';
    }
    case 'MARK':
      return 'packet_mark';
    case 'NOTRACK':
      return 'notrack';
    case 'CT':
      return (info[0] ?? 0) & CT_TARGET_NOTRACK ? 'notrack' : undefined;
    case 'FLOWOFFLOAD':
      return 'flowtable';
    default:
      return undefined;
  }
}

/** What an expression does: `NFTA_CT_KEY` 2, `SREG` 4; `NFTA_META_KEY` 2, `SREG` 3. */
function expressionKind(name: string | undefined, data: Attributes): ForeignKind | undefined {
  switch (name) {
    case 'ct':
      return data.has(4) && data.u32be(2) === CT_MARK ? 'ct_mark' : undefined;
    case 'meta':
      return data.has(3) && data.u32be(2) === META_MARK ? 'packet_mark' : undefined;
    case 'notrack':
      return 'notrack';
    case 'flow_offload':
      return 'flowtable';
    case 'target':
      return targetKind(data);
    default:
      return undefined;
  }
}

/** Looks at the tables of one network namespace that are not ours. Changes nothing, and never lists elements. */
export class ForeignTables {
  readonly #connection: NetlinkConnection;
  readonly #ours: readonly BaseChain[];

  constructor(connection: NetlinkConnection, ours: readonly BaseChain[]) {
    this.#connection = connection;
    this.#ours = ours;
  }

  /**
   * What they do now. Cost: one dump of the chains, and one of the rules of each table. Rejects with NetlinkError,
   * EINTR where they change faster than they can be listed.
   */
  look(): Promise<Foreign> {
    return again(() => this.#lookOnce());
  }

  async #lookOnce(): Promise<Foreign> {
    const found = new Map<ForeignKind, Map<TableName, Set<string>>>();
    const use: Use = (kind, table, chain) => {
      const tables = found.get(kind) ?? new Map<TableName, Set<string>>();
      const chains = tables.get(table) ?? new Set<string>();
      found.set(kind, tables.set(table, chains.add(chain)));
    };
    const tables: { family: number; table: string }[] = [];
    await this.#dump('list tables', NFT_MSG.getTable, undefined, (family, table) => {
      tables.push({ family, table });
    });
    // An empty chain that accepts does nothing, as iptables leaves them behind.
    const inUse = new Set<string>();
    for (const table of tables) await this.#lookAtRules(table, use, inUse);
    await this.#dump('list chains', NFT_MSG.getChain, undefined, (family, table, attributes) => {
      const chain = decodeChain(tableName(family, table), attributes);
      if (chain.drops || inUse.has(`${chain.table} ${chain.name}`)) this.#lookAtChain(chain, use);
    });
    await this.#dump('list flow tables', GET_FLOWTABLE, undefined, (family, table, attributes) => {
      use('flowtable', tableName(family, table), attributes.string(2) ?? '');
    });
    return found;
  }

  /** `NFTA_RULE_CHAIN` 2, `EXPRESSIONS` 4; `NFTA_EXPR_NAME` 1, `DATA` 2. */
  async #lookAtRules(of: { family: number; table: string }, use: Use, inUse: Set<string>): Promise<void> {
    await this.#dump('list rules', GET_RULE, of, (family, table, attributes) => {
      const name = tableName(family, table);
      const chain = attributes.string(2) ?? '';
      inUse.add(`${name} ${chain}`);
      for (const expression of attributes.list(4)) {
        const kind = expressionKind(expression.string(1), expression.nested(2) ?? NO_DATA);
        if (kind !== undefined) use(kind, name, chain);
      }
    });
  }

  #lookAtChain({ table, name, hook, priority, drops, isNat }: ForeignChain, use: Use): void {
    if (!OUR_FAMILIES.some((family) => table.startsWith(`${family} `))) return;
    const beside = this.#ours.filter((ours) => ours.hook === hook);
    if (isNat && hook !== 'input' && hook !== 'output') use('nat', table, name);
    else if (beside.length === 0) return;
    else if (drops && hook === 'forward') use('drop', table, name);
    else if (beside.some((ours) => ours.priority === priority)) use('same_priority', table, name);
    else use('hook', table, name);
  }

  async #dump(
    operation: string,
    type: number,
    of: { family: number; table: string } | undefined,
    take: (family: number, table: string, attributes: Attributes) => void,
  ): Promise<void> {
    const writer = new MessageWriter()
      .beginMessage({ type, flags: NLM_F_REQUEST | NLM_F_DUMP, sequence: 1 })
      .netfilterHeader(of?.family ?? AF_UNSPEC);
    if (of !== undefined) writer.attributeString(1, of.table);
    await this.#connection.request({
      bytes: writer.endMessage().bytes(),
      lastSequence: 1,
      operation: () => operation,
      onMessage: ({ payload }) => {
        const attributes = new Attributes(payload, NFGENMSG_BYTES);
        const family = payload[0] ?? 0;
        const table = attributes.string(1);
        if (table !== undefined && !isOurs(family, table)) take(family, table, attributes);
      },
    });
  }
}

/** `NFTA_CHAIN_NAME` 3, `HOOK` 4, `POLICY` 5, `TYPE` 7; `NFTA_HOOK_HOOKNUM` 1, `PRIORITY` 2. */
function decodeChain(table: TableName, attributes: Attributes): ForeignChain {
  const hook = attributes.nested(4);
  return {
    table,
    name: attributes.string(3) ?? '',
    hook: hook && HOOKS[hook.u32be(1) ?? HOOKS.length],
    priority: (hook?.u32be(2) ?? 0) | 0,
    drops: attributes.u32be(5) === 0,
    isNat: attributes.string(7) === 'nat',
  };
}

/** Findings of a look: one for each kind and table, and one for each kind that there is not. */
export function foreignFindings(foreign: Foreign): Finding[] {
  return (Object.keys(FOREIGN_KINDS) as ForeignKind[]).flatMap((kind): Finding[] => {
    const name = `foreign.${kind}`;
    const tables = [...(foreign.get(kind) ?? [])];
    const [does, so] = DETAILS[kind];
    if (tables.length === 0) return [{ name, level: 'ok', value: 'none', detail: `no other table ${does}` }];
    return tables.map(([value, chains]) => {
      const shown = [...chains].slice(0, CHAINS_SHOWN_MAX).map((chain) => JSON.stringify(chain));
      const more = chains.size > shown.length ? ` and ${chains.size - shown.length} more` : '';
      const detail = `table ${value} ${does}, in ${shown.join(', ')}${more}: ${so}`;
      return { name, level: FOREIGN_KINDS[kind], value, expected: 'none', detail };
    });
  });
}

/** Tables of the older iptables, of which nothing but their names can be seen, and those by root alone. */
export async function findLegacy(procRoot: string): Promise<Finding> {
  let isHidden = false;
  const names = async (file: string) => {
    try {
      return (await readFile(join(procRoot, 'net', file), 'utf8')).split('\n').filter((name) => name !== '');
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== 'ENOENT' && code !== 'EACCES') throw error;
      isHidden ||= code === 'EACCES';
      return [];
    }
  };
  const tables = [
    ...(await names('ip_tables_names')).map((table) => `iptables ${table}`),
    ...(await names('ip6_tables_names')).map((table) => `ip6tables ${table}`),
  ];
  const name = 'foreign.legacy';
  if (isHidden) {
    const detail =
      'the module of iptables-legacy is loaded, root alone sees its tables: run `sluice check --kernel` as root';
    return { name, level: 'warning', value: 'unknown', expected: 'none', detail };
  }
  if (tables.length === 0) return { name, level: 'ok', value: 'none', detail: 'no table of iptables-legacy' };
  const detail =
    'rules of iptables-legacy can not be looked into: none may use CONNMARK to set or save, as iptables-legacy-save tells';
  return { name, level: 'warning', value: tables.join(', '), expected: 'none', detail };
}
