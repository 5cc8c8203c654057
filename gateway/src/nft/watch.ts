import { NetlinkSocket } from 'nftables-napi';
import { NETLINK_NETFILTER } from '../netlink/connection.js';
import { Attributes, readMessages } from '../netlink/reader.js';
import { NFT_MSG } from './batch.js';
import { TABLE } from './program.js';

/** `NFNLGRP_NFTABLES` of linux/netfilter/nfnetlink.h. */
const NFNLGRP_NFTABLES = 7;
const NFGENMSG_BYTES = 4;
const RECEIVE_BUFFER_BYTES = 16 << 20;

/** What of our table somebody else changed. */
const DRIFT_KINDS = new Map<number, string>([
  [NFT_MSG.newTable, 'table'],
  [NFT_MSG.delTable, 'table'],
  [NFT_MSG.newChain, 'chain'],
  [NFT_MSG.delChain, 'chain'],
  [NFT_MSG.newRule, 'rule'],
  [NFT_MSG.delRule, 'rule'],
  [NFT_MSG.newSet, 'map'],
  [NFT_MSG.delSet, 'map'],
  [NFT_MSG.newSetElem, 'element'],
  [NFT_MSG.delSetElem, 'element'],
  [NFT_MSG.newObj, 'counter'],
  [NFT_MSG.delObj, 'counter'],
]);

/**
 * Calls back once for each burst of events that tell of changes to our table by anyone but the owner of `portId`.
 * Events that were lost count as a change: what they said is not known. Needs CAP_NET_ADMIN.
 */
export function watchTable(portId: number, onDrift: (kind: string) => void): { close(): void } {
  const socket = new NetlinkSocket({
    protocol: NETLINK_NETFILTER,
    receiveBufferBytes: RECEIVE_BUFFER_BYTES,
    onReceive: (bytes, lost) => {
      let kind = lost > 0 ? 'unknown' : undefined;
      for (const message of readMessages(bytes)) {
        const changed = DRIFT_KINDS.get(message.type);
        if (changed === undefined) continue;
        if (new Attributes(message.payload, NFGENMSG_BYTES).string(1) === TABLE) {
          kind = changed === 'table' ? changed : (kind ?? changed);
        }
      }
      if (kind !== undefined) onDrift(kind);
    },
  });
  // The events of a large transaction are more than any buffer: of our own, what is lost would be taken for drift.
  socket.ignore(portId);
  socket.join(NFNLGRP_NFTABLES);
  return socket;
}
