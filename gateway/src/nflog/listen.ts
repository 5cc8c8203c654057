import { NetlinkSocket } from 'nftables-napi';
import type { Listener } from '../conntrack/listen.js';
import { decodeError, NETLINK_NETFILTER, NLMSG_ERROR } from '../netlink/connection.js';
import { isNotSupported } from '../netlink/error.js';
import { type Message, readMessages } from '../netlink/reader.js';
import { MessageWriter } from '../netlink/writer.js';
import { decodePacket, type NflogPacket } from './decode.js';
import { encodeBind } from './encode.js';

const RECEIVE_BUFFER_BYTES = 32 << 20;
const COALESCE_MS = 4;
/** IPv6 with a few extension headers, and the TCP header: what records are made of. */
const COPY_BYTES = 128;
const KERNEL_BUFFER_BYTES = 131_072;
const THRESHOLD_PACKETS = 64;
const TIMEOUT_MS = 50;

/** Acknowledgements by sequence number, and who waits for them. */
type Waiting = Map<number, { resolve: () => void; reject: (error: Error) => void }>;

function acknowledge(waiting: Waiting, message: Message, operation: string): void {
  // Batches of packets end in an NLMSG_DONE, which says nothing here.
  if (message.type !== NLMSG_ERROR) return;
  const waiter = waiting.get(message.sequence);
  const error = decodeError(message, operation);
  if (error === undefined) waiter?.resolve();
  else waiter?.reject(error);
}

/**
 * Listens to the packets that our rules log to a group. `onLost` is called when the kernel had to drop some, and again,
 * before the next packet, with exactly how many. Packets come with their connection where the kernel was built with CONFIG_NETFILTER_NETLINK_GLUE_CT. Rejects with
 * NetlinkError EBUSY where another process listens to the group already. Needs CAP_NET_ADMIN.
 */
export async function listenNflog(
  group: number,
  onPacket: (packet: NflogPacket) => void,
  onLost: (packets: number | undefined) => void,
): Promise<Listener> {
  const operation = `listen to log group ${group}`;
  const waiting: Waiting = new Map();
  let last: number | undefined;
  const checkSequence = ({ sequence }: NflogPacket) => {
    if (sequence === undefined) return;
    const missing = last === undefined ? 0 : (sequence - last - 1) >>> 0;
    last = sequence;
    if (missing > 0) onLost(missing);
  };
  const socket = new NetlinkSocket({
    protocol: NETLINK_NETFILTER,
    receiveBufferBytes: RECEIVE_BUFFER_BYTES,
    coalesceMs: COALESCE_MS,
    onReceive: (bytes, lost) => {
      if (lost > 0) onLost(undefined);
      for (const message of readMessages(bytes)) {
        const packet = decodePacket(message);
        if (packet === undefined) {
          acknowledge(waiting, message, operation);
          continue;
        }
        checkSequence(packet);
        onPacket(packet);
      }
    },
  });
  const bind = async (sequence: number, conntrack: boolean): Promise<void> => {
    const acknowledged = new Promise<void>((resolve, reject) => waiting.set(sequence, { resolve, reject }));
    const writer = new MessageWriter();
    encodeBind(writer, {
      sequence,
      group,
      conntrack,
      copyBytes: COPY_BYTES,
      bufferBytes: KERNEL_BUFFER_BYTES,
      thresholdPackets: THRESHOLD_PACKETS,
      timeoutMs: TIMEOUT_MS,
    });
    await Promise.all([socket.send(writer.bytes()), acknowledged]);
  };
  try {
    await bind(1, true).catch((error: unknown) => {
      if (!isNotSupported(error)) throw error;
      return bind(2, false);
    });
  } catch (error) {
    socket.close();
    throw error;
  }
  return socket;
}
