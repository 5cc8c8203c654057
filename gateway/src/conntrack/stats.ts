import type { NetlinkConnection } from '../netlink/connection.js';
import { Attributes } from '../netlink/reader.js';
import { MessageWriter } from '../netlink/writer.js';
import { AF_UNSPEC, IPCTNL_MSG_CT_GET_STATS_CPU, NLM_F_DUMP, NLM_F_REQUEST } from './constants.js';

const NFGENMSG_BYTES = 4;

/** `enum ctattr_stats_cpu`: what went wrong. */
const FAILURES = {
  insert_failed: 9,
  drop: 10,
  early_drop: 11,
  error: 12,
  chain_too_long: 15,
} as const;

/**
 * What connection tracking could not do since the network namespace was made, by the kernel's words, all processors
 * together. Cost: one message a processor.
 */
export async function conntrackStats(connection: NetlinkConnection): Promise<ReadonlyMap<string, number>> {
  const writer = new MessageWriter()
    .beginMessage({ type: IPCTNL_MSG_CT_GET_STATS_CPU, flags: NLM_F_REQUEST | NLM_F_DUMP, sequence: 1 })
    .netfilterHeader(AF_UNSPEC)
    .endMessage();
  const messages = await connection.request({
    bytes: writer.bytes(),
    lastSequence: 1,
    operation: () => 'read statistics of connections',
  });
  const processors = messages.map(({ payload }) => new Attributes(payload, NFGENMSG_BYTES));
  return new Map(
    Object.entries(FAILURES).map(([kind, type]) => [
      kind,
      processors.reduce((sum, attributes) => sum + (attributes.u32be(type) ?? 0), 0),
    ]),
  );
}
