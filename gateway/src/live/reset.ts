import { probeTcp, resetTcp, type TcpEnd } from 'nftables-napi';
import type { Tuple } from '../conntrack/tuple.js';
import { addressToBytes } from '../net/address.js';
import type { TcpHeader } from '../nflog/packet.js';
import { RESET_MARK } from '../nft/mark.js';

/** Where the two ends of a connection stand: the next octet of each that the other expects. */
export interface Numbers {
  readonly original: number;
  readonly reply: number;
}

const TCP_ACK = 0x10;

/** What a packet that did not arrive says of both ends; undefined where it acknowledges nothing. */
export function numbersOf(tcp: TcpHeader | undefined, isReply: boolean): Numbers | undefined {
  if (tcp === undefined || (tcp.flags & TCP_ACK) === 0) return undefined;
  const { sequence, acknowledgement } = tcp;
  return isReply
    ? { original: acknowledgement, reply: sequence }
    : { original: sequence, reply: acknowledgement };
}

const ends = ({ src, dst, srcPort, dstPort }: Tuple): { source: TcpEnd; destination: TcpEnd } => ({
  source: { address: addressToBytes(src), port: srcPort! },
  destination: { address: addressToBytes(dst), port: dstPort! },
});

/** What is said in the name of one end of a TCP connection, by its original tuple. Throws NetlinkSystemError. */
export interface Speaker {
  /**
   * Resets both ends. What is said in the name of the source leaves as the source's packets do, translated with the
   * connection: an ACK first, which the program's `resets` chain answers with the reset for the source, then the reset
   * for the destination. An end that does not stand where the numbers say answers with an ACK (RFC 5961) that says
   * where, and that is refused too.
   */
  reset(original: Tuple, numbers: Numbers): void;
  /**
   * Asks the destination where the connection stands, by a SYN in the source's name: in mid-stream it is answered by
   * an ACK with the right numbers (RFC 5961), and connection tracking takes it for nothing new.
   */
  probe(original: Tuple): void;
}

export const speaker: Speaker = {
  reset: (original, numbers) =>
    resetTcp({
      ...ends(original),
      sequence: numbers.original,
      acknowledgement: numbers.reply,
      mark: RESET_MARK,
    }),
  probe: (original) => {
    const { source, destination } = ends(original);
    probeTcp(source, destination);
  },
};
