import type { NetlinkConnection } from '../netlink/connection.js';
import { isNotFound } from '../netlink/error.js';
import { Attributes, type Message } from '../netlink/reader.js';
import { MessageWriter } from '../netlink/writer.js';
import { NFPROTO_INET, NFT_MSG } from '../nft/batch.js';
import { encodeValueData } from '../nft/expressions.js';
import { TABLE } from '../nft/program.js';

/** linux/netfilter/nf_tables.h: `NFT_MSG_GETRULE`, `NFT_MSG_GETSETELEM`. */
const NFT_MSG_GETRULE = NFT_MSG.newRule + 1;
const NFT_MSG_GETSETELEM = NFT_MSG.newSetElem + 1;
const NLM_F_REQUEST = 0x1;
const NLM_F_ACK = 0x4;
const NLM_F_DUMP = 0x300;
const NFGENMSG_BYTES = 4;
const NFTA_GEN_ID = 1;
const NFTA_RULE_EXPRESSIONS = 4;
/** `NFTA_SET_ELEM_LIST_ELEMENTS`, `NFTA_SET_ELEM_KEY` and `DATA`, `NFTA_DATA_VALUE` and `VERDICT`. */
const ELEMENTS = 3;
const KEY = 1;
const DATA = 2;
const VALUE = 1;
const VERDICT = 2;

/** `NFTA_VERDICT_CODE` as a signed number, `NFTA_VERDICT_CHAIN`. */
export interface KernelVerdict {
  readonly code: number;
  readonly chain: string | undefined;
}

/** What an immediate or an element of a map holds; neither in a set, and in a map to objects. */
export interface KernelData {
  readonly value: Uint8Array | undefined;
  readonly verdict: KernelVerdict | undefined;
}

/** One expression of a rule, by the kernel's name for it. */
export interface Expression {
  readonly name: string;
  readonly data: Attributes;
}

/** The content of `NFTA_IMMEDIATE_DATA`, `NFTA_SET_ELEM_DATA` and the like. */
export function kernelData(attributes: Attributes | undefined): KernelData {
  const verdict = attributes?.nested(VERDICT);
  return {
    value: attributes?.bytes(VALUE),
    verdict: verdict && { code: (verdict.u32be(1) ?? 0) | 0, chain: verdict.string(2) },
  };
}

/** Asks the kernel for single parts of our table: nothing that it says comes from what we remember. */
export class KernelTable {
  readonly #connection: NetlinkConnection;

  constructor(connection: NetlinkConnection) {
    this.#connection = connection;
  }

  async #ask(
    operation: string,
    type: number,
    flags: number,
    body: (writer: MessageWriter) => void,
  ): Promise<readonly Message[]> {
    const writer = new MessageWriter()
      .beginMessage({ type, flags: NLM_F_REQUEST | flags, sequence: 1 })
      .netfilterHeader(NFPROTO_INET);
    body(writer);
    const bytes = writer.endMessage().bytes();
    return this.#connection.request({ bytes, lastSequence: 1, operation: () => operation });
  }

  /** A number that every transaction of anybody changes. */
  async generation(): Promise<number> {
    const [message] = await this.#ask('get generation', NFT_MSG.getGen, NLM_F_ACK, () => {});
    return new Attributes(message!.payload, NFGENMSG_BYTES).u32be(NFTA_GEN_ID) ?? 0;
  }

  /** The rules of a chain, in order; none where there is no such chain. */
  async rules(chain: string): Promise<readonly (readonly Expression[])[]> {
    const messages = await this.#ask(`list rules of "${chain}"`, NFT_MSG_GETRULE, NLM_F_DUMP, (writer) =>
      writer.attributeString(1, TABLE).attributeString(2, chain),
    );
    return messages
      .map(({ payload }) => new Attributes(payload, NFGENMSG_BYTES))
      .filter((rule) => rule.string(1) === TABLE && rule.string(2) === chain)
      .map((rule) =>
        rule.list(NFTA_RULE_EXPRESSIONS).map((expression) => ({
          name: expression.string(1) ?? '',
          data: expression.nested(2) ?? new Attributes(new Uint8Array()),
        })),
      );
  }

  /** What a set or map has for a key, in an interval or alone; undefined where it has no such key. */
  async element(set: string, key: Uint8Array): Promise<KernelData | undefined> {
    try {
      const [message] = await this.#ask(`get element of "${set}"`, NFT_MSG_GETSETELEM, NLM_F_ACK, (writer) =>
        writer
          .attributeString(1, TABLE)
          .attributeString(2, set)
          .nest(ELEMENTS, () => writer.nest(1, () => encodeValueData(writer, KEY, key))),
      );
      const [element] = new Attributes(message!.payload, NFGENMSG_BYTES).list(ELEMENTS);
      return kernelData(element?.nested(DATA));
    } catch (error) {
      if (isNotFound(error)) return undefined;
      throw error;
    }
  }
}
