import { NetlinkSocket } from 'nftables-napi';
import { NETLINK_NETFILTER } from '../netlink/connection.js';
import { readMessages } from '../netlink/reader.js';
import { type ConntrackEvent, decodeEvent } from './decode.js';
import { NFNLGRP_CONNTRACK_DESTROY, NFNLGRP_CONNTRACK_NEW, NFNLGRP_CONNTRACK_UPDATE } from './groups.js';

/** Some seconds of 100,000 events a second, for when the event loop is busy. */
const RECEIVE_BUFFER_BYTES = 64 << 20;
/** Waking for every event would slow the kernel's side of the traffic. */
const COALESCE_MS = 4;

export interface Listener {
  /** The kernel's name of the socket. */
  readonly portId: number;
  close(): void;
}

/**
 * Listens to connections that begin, change and end. `onLost` is called when the kernel had to drop events; it
 * does not say how many. Needs CAP_NET_ADMIN.
 */
export function listenConntrack(onEvent: (event: ConntrackEvent) => void, onLost: () => void): Listener {
  const socket = new NetlinkSocket({
    protocol: NETLINK_NETFILTER,
    receiveBufferBytes: RECEIVE_BUFFER_BYTES,
    coalesceMs: COALESCE_MS,
    onReceive: (bytes, lost) => {
      if (lost > 0) onLost();
      for (const message of readMessages(bytes)) {
        const event = decodeEvent(message);
        if (event !== undefined) onEvent(event);
      }
    },
  });
  for (const group of [NFNLGRP_CONNTRACK_NEW, NFNLGRP_CONNTRACK_UPDATE, NFNLGRP_CONNTRACK_DESTROY]) {
    socket.join(group);
  }
  return socket;
}
