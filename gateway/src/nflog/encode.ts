import { AF_UNSPEC, NLM_F_ACK, NLM_F_REQUEST } from '../conntrack/constants.js';
import type { MessageWriter } from '../netlink/writer.js';
import * as c from './constants.js';

/** What is to be logged of a group, and how many packets to a message. */
export interface BindRequest {
  readonly sequence: number;
  /** The `log group` of the rules, 0 to 65535. One socket only can be bound to it in a network namespace. */
  readonly group: number;
  /** How much of each packet is copied, from its network header on. */
  readonly copyBytes: number;
  /**
   * Room in the kernel for packets that wait to be sent, at most 131072; a datagram has that size at most.
   */
  readonly bufferBytes: number;
  /** Packets are sent when so many wait, or when the oldest has waited so long (to 10 ms). */
  readonly thresholdPackets: number;
  readonly timeoutMs: number;
  /**
   * Whether the connection is sent along: EOPNOTSUPP from a kernel without CONFIG_NETFILTER_NETLINK_GLUE_CT.
   */
  readonly conntrack: boolean;
}

/**
 * Checked by the kernel's `__be32` and 1/100 s, not by its own words: a wrong one would be cut in silence.
 */
const GROUP_MAX = 0xffff;
const NLBUFSIZ_MAX_BYTES = 131_072;

/** `struct nfulnl_msg_config_mode`, packed: `__be32 copy_range; __u8 copy_mode; __u8 _pad`. */
function configMode(copyBytes: number): Uint8Array {
  const bytes = new Uint8Array(6);
  new DataView(bytes.buffer).setUint32(0, copyBytes);
  bytes[4] = c.NFULNL_COPY_PACKET;
  return bytes;
}

function check(name: string, value: number, max: number): void {
  if (!Number.isInteger(value) || value < 0 || value > max) {
    throw new RangeError(`Cannot encode log group: ${name} is ${value}, not an integer from 0 to ${max}`);
  }
}

/** Appends the binding of a socket to a log group, acknowledged; EBUSY where another holds it. */
export function encodeBind(writer: MessageWriter, request: BindRequest): void {
  check('group', request.group, GROUP_MAX);
  check('bufferBytes', request.bufferBytes, NLBUFSIZ_MAX_BYTES);
  const flags = NLM_F_REQUEST | NLM_F_ACK;
  writer.beginMessage({ type: c.NFULNL_MSG_CONFIG, flags, sequence: request.sequence });
  writer.netfilterHeader(AF_UNSPEC, request.group);
  writer.attributeU8(c.NFULA_CFG_CMD, c.NFULNL_CFG_CMD_BIND);
  writer.attributeBytes(c.NFULA_CFG_MODE, configMode(request.copyBytes));
  writer.attributeU32be(c.NFULA_CFG_NLBUFSIZ, request.bufferBytes);
  writer.attributeU32be(c.NFULA_CFG_TIMEOUT, Math.round(request.timeoutMs / 10));
  writer.attributeU32be(c.NFULA_CFG_QTHRESH, request.thresholdPackets);
  writer.attributeU16be(
    c.NFULA_CFG_FLAGS,
    c.NFULNL_CFG_F_SEQ | (request.conntrack ? c.NFULNL_CFG_F_CONNTRACK : 0),
  );
  writer.endMessage();
}
