import { setImmediate as nextTurn } from 'node:timers/promises';
import { again } from '../netlink/again.js';
import type { NetlinkConnection } from '../netlink/connection.js';
import { isNotFound } from '../netlink/error.js';
import { Attributes, type Message } from '../netlink/reader.js';
import { MessageWriter } from '../netlink/writer.js';
import { Batch, HOOK_NUMBER, NFPROTO_INET, NFT_MSG, TABLE_DORMANT } from './batch.js';
import { type KeySet, TABLE } from './program.js';
import { OBJECT_COUNTER, OBJECT_LIMIT } from './set.js';

const NLM_F_REQUEST = 0x1;
const NLM_F_ACK = 0x4;
const NLM_F_DUMP = 0x300;
const NFGENMSG_BYTES = 4;
/** Some milliseconds of decoding, after which others have their turn. */
const DECODED_A_TURN_MAX = 1_000;

/** Names of what our table holds in the kernel. */
export interface TableContent {
  readonly chains: ReadonlySet<string>;
  readonly maps: ReadonlySet<string>;
  readonly counters: ReadonlySet<string>;
  readonly limits: ReadonlySet<string>;
}

export const EMPTY_TABLE: TableContent = {
  chains: new Set(),
  maps: new Set(),
  counters: new Set(),
  limits: new Set(),
};

/** A named counter of our table. */
export interface CounterValue {
  readonly packets: bigint;
  readonly bytes: bigint;
}

/** `enum nft_object_attributes`, `enum nft_counter_attributes`. */
const NFTA_OBJ_NAME = 2;
const NFTA_OBJ_TYPE = 3;
const NFTA_OBJ_DATA = 4;
const NFTA_COUNTER_BYTES = 1;
const NFTA_COUNTER_PACKETS = 2;
const NFTA_TABLE_FLAGS = 2;
const NFTA_GEN_ID = 1;
const NFTA_CHAIN_HOOK = 4;
const NFTA_CHAIN_POLICY = 5;
const NFTA_HOOK_HOOKNUM = 1;
const NF_DROP = 0;
/** The name attribute of a chain and of a set. */
const NFTA_CHAIN_NAME = 3;
const NFTA_SET_NAME = 2;

/** Reads and writes our nf_tables table through one netlink connection. Lists names, never elements. */
export class NftKernel {
  readonly #connection: NetlinkConnection;
  #sequence = 0;

  constructor(connection: NetlinkConnection) {
    this.#connection = connection;
  }

  /** Events of our own transactions carry this port id. */
  get portId(): number {
    return this.#connection.portId;
  }

  /** Applies one transaction: all of it or nothing. Rejects as `NetlinkConnection.request` does. */
  async commit(batch: Batch): Promise<void> {
    if (batch.isEmpty) return;
    const { bytes, lastSequence, operations } = batch.finish();
    await this.#connection.request({
      bytes,
      lastSequence,
      operation: (sequence) => operations[sequence] ?? 'commit batch',
    });
  }

  /** Makes these the only elements of the sets, each of which is there. */
  async fillSets(sets: readonly KeySet[]): Promise<void> {
    const batch = new Batch();
    for (const set of sets) batch.flushSet(set.name).addSomeElements(set, set.elements);
    await this.commit(batch);
  }

  /** Lists our table's objects. */
  async #dump(operation: string, type: number): Promise<Attributes[]> {
    return (await this.#messages(operation, type))
      .map(({ payload }) => new Attributes(payload, NFGENMSG_BYTES))
      .filter((attributes) => attributes.string(1) === TABLE);
  }

  /** The objects of our table, undecoded. */
  #messages(operation: string, type: number): Promise<readonly Message[]> {
    return again(() => this.#messagesOnce(operation, type));
  }

  #messagesOnce(operation: string, type: number): Promise<readonly Message[]> {
    const sequence = ++this.#sequence;
    const writer = new MessageWriter()
      .beginMessage({ type, flags: NLM_F_REQUEST | NLM_F_DUMP, sequence })
      .netfilterHeader(NFPROTO_INET)
      .attributeString(1, TABLE)
      .endMessage();
    return this.#connection.request({
      bytes: writer.bytes(),
      lastSequence: sequence,
      operation: () => operation,
    });
  }

  /** Whether our table exists. */
  async hasTable(): Promise<boolean> {
    return (await this.tableFlags()) !== undefined;
  }

  /** Bits `TABLE_OWNER`, `TABLE_PERSIST` and `TABLE_DORMANT` of our table; undefined where there is none. */
  async tableFlags(): Promise<number | undefined> {
    const table = await this.#get('get table', NFT_MSG.getTable);
    return table === undefined ? undefined : (table.u32be(NFTA_TABLE_FLAGS) ?? 0);
  }

  /**
   * Whether these chains, each at the forward hook with policy drop, are in the kernel and see packets. Cost: one
   * request for the table and for each chain, however much they hold.
   */
  async hasDefaultDrop(chains: readonly string[]): Promise<boolean> {
    const flags = await this.tableFlags();
    if (flags === undefined || (flags & TABLE_DORMANT) !== 0) return false;
    for (const name of chains) {
      const chain = await this.#get('get base chain', NFT_MSG.getChain, (writer) =>
        writer.attributeString(NFTA_CHAIN_NAME, name),
      );
      const hook = chain?.nested(NFTA_CHAIN_HOOK)?.u32be(NFTA_HOOK_HOOKNUM);
      if (hook !== HOOK_NUMBER.forward || chain?.u32be(NFTA_CHAIN_POLICY) !== NF_DROP) return false;
    }
    return true;
  }

  /** The id of the whole ruleset of this network namespace: another after each transaction, whoever made it. */
  async rulesetId(): Promise<number> {
    return (await this.#get('get ruleset id', NFT_MSG.getGen))!.u32be(NFTA_GEN_ID)!;
  }

  /** Our table, or the object in it that more attributes name; undefined where there is none. */
  #get(
    operation: string,
    type: number,
    name: (writer: MessageWriter) => unknown = () => {},
  ): Promise<Attributes | undefined> {
    return again(async () => {
      const sequence = ++this.#sequence;
      const writer = new MessageWriter()
        .beginMessage({ type, flags: NLM_F_REQUEST | NLM_F_ACK, sequence })
        .netfilterHeader(NFPROTO_INET)
        .attributeString(1, TABLE);
      name(writer);
      const bytes = writer.endMessage().bytes();
      try {
        const [message] = await this.#connection.request({
          bytes,
          lastSequence: sequence,
          operation: () => operation,
        });
        return new Attributes(message!.payload, NFGENMSG_BYTES);
      } catch (error) {
        if (isNotFound(error)) return undefined;
        throw error;
      }
    });
  }

  /** Names of what our table holds; empty where there is no table. */
  async list(): Promise<TableContent> {
    const names = async (operation: string, type: number, attribute: number) =>
      new Set((await this.#dump(operation, type)).map((attributes) => attributes.string(attribute)!));
    if (!(await this.hasTable())) return EMPTY_TABLE;
    return {
      chains: await names('list chains', NFT_MSG.getChain, NFTA_CHAIN_NAME),
      maps: await names('list maps', NFT_MSG.getSet, NFTA_SET_NAME),
      counters: await this.#objectNames(OBJECT_COUNTER),
      limits: await this.#objectNames(OBJECT_LIMIT),
    };
  }

  async #objectNames(type: number): Promise<ReadonlySet<string>> {
    const objects = await this.#dump('list objects', NFT_MSG.getObj);
    return new Set(
      objects
        .filter((attributes) => attributes.u32be(NFTA_OBJ_TYPE) === type)
        .map((attributes) => attributes.string(NFTA_OBJ_NAME)!),
    );
  }

  /** All named counters of our table. Cost: one dump, linear in their number. */
  async counters(): Promise<ReadonlyMap<string, CounterValue>> {
    const values = new Map<string, CounterValue>();
    const messages = await this.#messages('read counters', NFT_MSG.getObj);
    for (const [index, { payload }] of messages.entries()) {
      if (index % DECODED_A_TURN_MAX === DECODED_A_TURN_MAX - 1) await nextTurn();
      const attributes = new Attributes(payload, NFGENMSG_BYTES);
      if (attributes.u32be(NFTA_OBJ_TYPE) !== OBJECT_COUNTER || attributes.string(1) !== TABLE) continue;
      const data = attributes.nested(NFTA_OBJ_DATA);
      values.set(attributes.string(NFTA_OBJ_NAME)!, {
        packets: data?.u64be(NFTA_COUNTER_PACKETS) ?? 0n,
        bytes: data?.u64be(NFTA_COUNTER_BYTES) ?? 0n,
      });
    }
    return values;
  }
}
