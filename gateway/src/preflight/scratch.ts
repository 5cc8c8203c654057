import { AF_UNSPEC, NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST } from '../conntrack/constants.js';
import type { NetlinkConnection } from '../netlink/connection.js';
import type { Message } from '../netlink/reader.js';
import { MessageWriter } from '../netlink/writer.js';
import { HOOK_NUMBER, NFPROTO_INET, NFT_MSG, TABLE_DORMANT } from '../nft/batch.js';
import { encodeRule } from '../nft/encode.js';
import { encodeValueData, encodeVerdictData } from '../nft/expressions.js';
import type { BaseChain } from '../nft/program.js';
import { KEY_TYPES, NFT_SET_ELEM_INTERVAL_END, NFT_SET_INTERVAL, VERDICT_TYPE } from '../nft/set.js';
import type { Rule } from '../nft/statement.js';

/** In it kernel features are tried. Nothing of it outlives the transaction that made it. */
export const SCRATCH_TABLE = 'sluice_probe';

/** `NFNL_MSG_BATCH_BEGIN`, `NFNL_MSG_BATCH_END`, `NFNL_SUBSYS_NFTABLES`, `NLM_F_ECHO`. */
const BATCH_BEGIN = 0x10;
const BATCH_END = 0x11;
const NFNL_SUBSYS_NFTABLES = 10;
const NLM_F_ECHO = 0x8;

export type ScratchBase = Pick<BaseChain, 'type' | 'hook'>;

/** A set of IPv4 addresses, or a map of them. */
export interface ScratchSet {
  readonly name: string;
  readonly flags: number;
  readonly data?: 'mark' | 'verdict' | { readonly object: number };
}

/** Writes one expression of a rule, for those that the program has no statement for. */
export function expression(writer: MessageWriter, name: string, data: () => void): void {
  writer.nest(1, () => {
    writer.attributeString(1, name);
    writer.nest(2, data);
  });
}

/**
 * One transaction in a scratch table that it makes first and deletes last: whether the kernel took what is between
 * is all that is left of it.
 */
export class Scratch {
  readonly #writer = new MessageWriter();
  readonly #operations: string[] = ['begin'];
  #setId = 0;

  constructor(tableFlags = 0) {
    this.#batch(BATCH_BEGIN, 0);
    this.message('add table', NFT_MSG.newTable, NLM_F_CREATE, (writer) =>
      writer.attributeU32be(2, TABLE_DORMANT | tableFlags),
    );
  }

  #batch(type: number, sequence: number): void {
    this.#writer
      .beginMessage({ type, flags: NLM_F_REQUEST, sequence })
      .netfilterHeader(AF_UNSPEC, NFNL_SUBSYS_NFTABLES)
      .endMessage();
  }

  /** Appends a message about the scratch table; the table's name is attribute 1 of all of them. */
  message(operation: string, type: number, flags: number, body: (writer: MessageWriter) => void): this {
    const sequence = this.#operations.push(operation) - 1;
    this.#writer
      .beginMessage({ type, flags: NLM_F_REQUEST | flags, sequence })
      .netfilterHeader(NFPROTO_INET)
      .attributeString(1, SCRATCH_TABLE);
    body(this.#writer);
    this.#writer.endMessage();
    return this;
  }

  chain(name: string, base?: ScratchBase): this {
    return this.message(`add chain "${name}"`, NFT_MSG.newChain, NLM_F_CREATE, (writer) => {
      writer.attributeString(3, name);
      if (base === undefined) return;
      writer.nest(4, () => writer.attributeU32be(1, HOOK_NUMBER[base.hook]).attributeU32be(2, 0));
      writer.attributeU32be(5, 1).attributeString(7, base.type);
    });
  }

  /** Appends a rule, in the words of the program or as expressions. */
  rule(chain: string, rule: Rule | ((writer: MessageWriter) => void)): this {
    return this.message('add rule', NFT_MSG.newRule, NLM_F_CREATE, (writer) => {
      writer.attributeString(2, chain);
      writer.nest(4, () => (typeof rule === 'function' ? rule(writer) : encodeRule(writer, rule)));
    });
  }

  object(name: string, type: number, data: (writer: MessageWriter) => void): this {
    return this.message(`add object "${name}"`, NFT_MSG.newObj, NLM_F_CREATE, (writer) => {
      writer.attributeString(2, name).attributeU32be(3, type);
      writer.nest(4, () => data(writer));
    });
  }

  /** Adds a set; with `echo` the kernel says how it keeps it. */
  set({ name, flags, data }: ScratchSet, echo = false): this {
    const id = ++this.#setId;
    const echoed = echo ? NLM_F_ECHO : 0;
    return this.message(`add set "${name}"`, NFT_MSG.newSet, NLM_F_CREATE | echoed, (writer) => {
      writer.attributeString(2, name).attributeU32be(3, flags);
      writer.attributeU32be(4, KEY_TYPES.ipv4_addr.id).attributeU32be(5, 4);
      if (data === 'mark') writer.attributeU32be(6, KEY_TYPES.mark.id).attributeU32be(7, 4);
      else if (data === 'verdict') writer.attributeU32be(6, VERDICT_TYPE).attributeU32be(7, 0);
      else if (data !== undefined) writer.attributeU32be(15, data.object);
      writer.nest(9, () => writer.attributeU32be(1, 16)).attributeU32be(10, id);
    });
  }

  /** Adds one element, 192.0.2.0 or for interval sets 192.0.2.0 to 192.0.2.255, that gives what the set gives. */
  element({ name, flags, data }: ScratchSet): this {
    return this.message(`add element to "${name}"`, NFT_MSG.newSetElem, NLM_F_CREATE, (writer) => {
      writer.attributeString(2, name);
      writer.nest(3, () => {
        writer.nest(1, () => {
          encodeValueData(writer, 1, Uint8Array.of(192, 0, 2, 0));
          if (data === 'mark') encodeValueData(writer, 2, new Uint8Array(4));
          else if (data === 'verdict') encodeVerdictData(writer, 2, { kind: 'drop' });
          else if (data !== undefined) writer.attributeString(9, 'object');
        });
        if ((flags & NFT_SET_INTERVAL) === 0) return;
        writer.nest(1, () => {
          writer.attributeU32be(3, NFT_SET_ELEM_INTERVAL_END);
          encodeValueData(writer, 1, Uint8Array.of(192, 0, 3, 0));
        });
      });
    });
  }

  /**
   * Has the kernel take it, with the deletion of the table at its end. Gives what the kernel echoed; rejects with
   * the NetlinkError of what it refused.
   */
  async commit(connection: NetlinkConnection): Promise<readonly Message[]> {
    this.message('delete table', NFT_MSG.delTable, NLM_F_ACK, () => {});
    const operations = this.#operations;
    const lastSequence = operations.length - 1;
    this.#batch(BATCH_END, lastSequence + 1);
    return connection.request({
      bytes: this.#writer.bytes(),
      lastSequence,
      operation: (sequence) => operations[sequence] ?? 'commit batch',
    });
  }
}
