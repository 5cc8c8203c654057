import type { Connection } from 'sluice-gateway/conntrack/decode.js';
import { listenConntrack } from 'sluice-gateway/conntrack/listen.js';
import { ConntrackTable } from 'sluice-gateway/conntrack/table.js';
import { FlowAssembler } from 'sluice-gateway/flows/assemble.js';
import type { FlowRecord } from 'sluice-gateway/flows/record.js';
import { Judge } from 'sluice-gateway/live/judge.js';
import { speaker } from 'sluice-gateway/live/reset.js';
import { type InForce, Revoker } from 'sluice-gateway/live/revoker.js';
import { createLog } from 'sluice-gateway/log.js';
import { Matcher } from 'sluice-gateway/matcher/matcher.js';
import { NETLINK_NETFILTER, NetlinkConnection } from 'sluice-gateway/netlink/connection.js';
import { listenNflog } from 'sluice-gateway/nflog/listen.js';
import { LOG_GROUP } from 'sluice-gateway/policy/fixed-chains.js';
import { RuleHistory } from 'sluice-gateway/rule-history.js';
import type { LoadInput } from './load.js';
import type { Stand } from './stand.js';

/** On a stand, what the gateway has around the program to end live connections: listeners, assembler and revoker. */
export class Ender {
  readonly records: FlowRecord[] = [];
  /** Ids of the entries that the revoker has deleted, or found gone. */
  readonly deleted: number[] = [];
  readonly #stand: Stand;
  readonly #history = new RuleHistory();
  readonly #connections = [0, 1].map(() => new NetlinkConnection(NETLINK_NETFILTER));
  readonly table = new ConntrackTable(this.#connections[0]!);
  readonly #closers: (() => void)[] = [];
  readonly revoker: Revoker;
  #matcher = Matcher.build({ groups: [], functions: [], excluded: [] });
  /** Asked by the revoker. */
  inForce: InForce | undefined;
  /** For the revoker a change is under way until this is taken back: it waits. */
  isHeld = false;

  private constructor(stand: Stand) {
    this.#stand = stand;
    const assembler = new FlowAssembler({
      gateway: 'gw',
      rules: this.#history,
      matcher: () => this.#matcher,
      now: () => new Date(),
      connectionsMax: 1_000,
    });
    const add = (record: FlowRecord | undefined) => {
      if (record !== undefined) this.records.push(record);
    };
    this.revoker = new Revoker({
      table: {
        find: (tuple) => this.table.find(tuple),
        deleteAll: async (entries) => {
          const wereThere = await this.table.deleteAll(entries);
          this.deleted.push(...entries.map(({ id }) => id));
          return wereThere;
        },
      },
      listing: new ConntrackTable(this.#connections[1]!),
      inForce: () => (this.isHeld ? undefined : this.inForce),
      rules: this.#history,
      speaker,
      onRefused: (packet) => add(assembler.packet(packet)),
      onSwept: (entry: Connection, decision) => add(assembler.revoked(entry, decision)),
      log: createLog(),
    });
    const conntrack = listenConntrack(
      (event) => add(assembler.conntrack(event)),
      () => undefined,
    );
    this.#closers.push(() => conntrack.close());
  }

  static async create(stand: Stand): Promise<Ender> {
    const ender = new Ender(stand);
    const nflog = await listenNflog(
      LOG_GROUP,
      (packet) => ender.revoker.refused(packet),
      () => undefined,
    );
    ender.#closers.push(() => nflog.close());
    return ender;
  }

  /** Brings a policy into force under the next generation, without a sweep. */
  async load(input: LoadInput): Promise<void> {
    this.inForce = undefined;
    const { policy, groups } = input;
    const generation = this.#stand.loader.generation + 1;
    this.#history.remember(generation, policy);
    await this.#stand.loader.load(input);
    await this.#stand.loader.applier.collect();
    const listed = [...groups].map(([name, prefixes]) => ({ name, prefixes }));
    this.#matcher = Matcher.build({ groups: listed, functions: [], excluded: [] });
    this.inForce = { generation, judge: new Judge(policy, this.#matcher) };
  }

  async close(): Promise<void> {
    await this.revoker.stop();
    for (const close of this.#closers) close();
    for (const connection of this.#connections) connection.close();
  }
}
