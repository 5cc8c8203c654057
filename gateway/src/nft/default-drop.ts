import type { NetlinkConnection } from '../netlink/connection.js';
import { isNotFound } from '../netlink/error.js';
import { Attributes } from '../netlink/reader.js';
import { MessageWriter } from '../netlink/writer.js';
import { HOOK_NUMBER, NFPROTO_INET, NFT_MSG } from './batch.js';
import { TABLE } from './program.js';

/** linux/netlink.h */
const NLM_F_REQUEST = 0x1;
const NLM_F_ACK = 0x4;
const NFGENMSG_BYTES = 4;
/** `enum nft_table_attributes`, `nft_chain_attributes`, `nft_hook_attributes` of linux/netfilter/nf_tables.h. */
const NFTA_TABLE_NAME = 1;
const NFTA_TABLE_FLAGS = 2;
const NFTA_CHAIN_NAME = 3;
const NFTA_CHAIN_HOOK = 4;
const NFTA_CHAIN_POLICY = 5;
const NFTA_HOOK_HOOKNUM = 1;
/** A table whose chains see no packets. */
const NFT_TABLE_F_DORMANT = 0x1;
const NF_DROP = 0;

/** One object of our table by its name; undefined where there is none. */
async function get(
  connection: NetlinkConnection,
  type: number,
  chain?: string,
): Promise<Attributes | undefined> {
  const writer = new MessageWriter()
    .beginMessage({ type, flags: NLM_F_REQUEST | NLM_F_ACK, sequence: 1 })
    .netfilterHeader(NFPROTO_INET)
    .attributeString(NFTA_TABLE_NAME, TABLE);
  if (chain !== undefined) writer.attributeString(NFTA_CHAIN_NAME, chain);
  const bytes = writer.endMessage().bytes();
  const operation = () => 'read base chain';
  try {
    const [message] = await connection.request({ bytes, lastSequence: 1, operation });
    return message && new Attributes(message.payload, NFGENMSG_BYTES);
  } catch (error) {
    if (isNotFound(error)) return undefined;
    throw error;
  }
}

/**
 * Whether chains of our table, each at the forward hook with policy drop, are in the kernel and see packets. Cost: one
 * request for the table and for each chain, however much they hold.
 */
export async function hasDefaultDrop(
  connection: NetlinkConnection,
  chains: readonly string[],
): Promise<boolean> {
  const table = await get(connection, NFT_MSG.getTable);
  if (table === undefined || ((table.u32be(NFTA_TABLE_FLAGS) ?? 0) & NFT_TABLE_F_DORMANT) !== 0) return false;
  for (const name of chains) {
    const chain = await get(connection, NFT_MSG.getChain, name);
    const hook = chain?.nested(NFTA_CHAIN_HOOK)?.u32be(NFTA_HOOK_HOOKNUM);
    if (hook !== HOOK_NUMBER.forward || chain?.u32be(NFTA_CHAIN_POLICY) !== NF_DROP) return false;
  }
  return true;
}
