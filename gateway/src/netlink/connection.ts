import { NetlinkSocket } from 'nftables-napi';
import { NetlinkError, UnknownOutcomeError } from './error.js';
import { Attributes, type Message, readMessages } from './reader.js';
import { align, NLMSG_HDRLEN } from './writer.js';

/** linux/netlink.h. */
export const NETLINK_ROUTE = 0;
export const NETLINK_NETFILTER = 12;
const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
const NLM_F_CAPPED = 0x100;
const NLM_F_ACK_TLVS = 0x200;
const NETLINK_CAP_ACK = 10;
const NETLINK_EXT_ACK = 11;
const NLMSGERR_ATTR_MSG = 1;
const NLMSGERR_ATTR_OFFS = 2;

/** Room for the answers to one batch in which every message fails. */
const RECEIVE_BUFFER_BYTES = 8 << 20;
const SEND_BUFFER_BYTES = 64 << 20;
/** The kernel answers within `send`, a dump goes on at once: after such a silence the rest was lost. */
const SILENCE_MS_MAX = 5_000;

/**
 * What an acknowledgement says (`struct nlmsgerr`: the error, the header of the message it is about, and with
 * NETLINK_EXT_ACK attributes): undefined for success, and for any other message.
 */
export function decodeError(message: Message, operation: string): NetlinkError | undefined {
  if (message.type !== NLMSG_ERROR) return undefined;
  const { payload } = message;
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  const errno = -view.getInt32(0, true);
  if (errno === 0) return undefined;
  const echoed = message.flags & NLM_F_CAPPED ? NLMSG_HDRLEN : view.getUint32(4, true);
  const attributes =
    message.flags & NLM_F_ACK_TLVS
      ? new Attributes(payload, 4 + align(echoed))
      : new Attributes(new Uint8Array());
  return new NetlinkError(
    operation,
    errno,
    attributes.string(NLMSGERR_ATTR_MSG),
    attributes.u32(NLMSGERR_ATTR_OFFS),
  );
}

/** One request as bytes, and which of its messages end the answer. */
export interface Request {
  readonly bytes: Uint8Array;
  /** An acknowledgement, error or end of dump with this sequence number ends the answer. */
  readonly lastSequence: number;
  /** What the message with a sequence number was to do, for errors. */
  readonly operation: (sequence: number) => string;
  /** Takes each message of a long dump as it comes, so that it need not be kept. */
  readonly onMessage?: (message: Message) => void;
}

interface Pending {
  readonly request: Request;
  readonly messages: Message[];
  readonly resolve: (messages: readonly Message[]) => void;
  readonly reject: (error: Error) => void;
  error: NetlinkError | undefined;
}

/**
 * Requests and their answers over one socket, one at a time in the order they were made. Nothing
 * of it blocks: a large transaction keeps the kernel busy, not the event loop.
 */
export class NetlinkConnection {
  readonly #socket: NetlinkSocket;
  #pending: Pending | undefined;
  #turn: Promise<unknown> = Promise.resolve();
  #silence: NodeJS.Timeout | undefined;

  constructor(protocol: number) {
    this.#socket = new NetlinkSocket({
      protocol,
      receiveBufferBytes: RECEIVE_BUFFER_BYTES,
      sendBufferBytes: SEND_BUFFER_BYTES,
      onReceive: (bytes, lost) => this.#receive(bytes, lost),
    });
    this.#socket.setOption(NETLINK_CAP_ACK, 1);
    this.#socket.setOption(NETLINK_EXT_ACK, 1);
  }

  /** Events that this connection caused carry its port id. */
  get portId(): number {
    return this.#socket.portId;
  }

  close(): void {
    this.#socket.close();
    this.#pending?.reject(new UnknownOutcomeError('Cannot finish request: the connection was closed'));
  }

  /**
   * Sends a request and gives the messages of its answer. Rejects with the first NetlinkError of any of its
   * messages, or with UnknownOutcomeError where the answer was lost: ask the kernel before you try again.
   */
  request(request: Request): Promise<readonly Message[]> {
    const result = this.#turn.then(() => this.#exchange(request));
    this.#turn = result.catch(() => undefined);
    return result;
  }

  async #exchange(request: Request): Promise<readonly Message[]> {
    const answer = new Promise<readonly Message[]>((resolve, reject) => {
      this.#pending = { request, messages: [], resolve, reject, error: undefined };
    });
    // Handled below; until then a rejection must not count as unhandled.
    answer.catch(() => undefined);
    try {
      await this.#socket.send(request.bytes);
      this.#silence = setTimeout(() => this.#giveUp('no answer came'), SILENCE_MS_MAX);
      return await answer;
    } finally {
      clearTimeout(this.#silence);
      this.#pending = undefined;
    }
  }

  #giveUp(why: string): void {
    const pending = this.#pending;
    if (pending === undefined) return;
    const operation = pending.request.operation(pending.request.lastSequence);
    pending.reject(pending.error ?? new UnknownOutcomeError(`Cannot tell outcome of ${operation}: ${why}`));
  }

  #receive(bytes: Uint8Array, lost: number): void {
    this.#silence?.refresh();
    for (const message of readMessages(bytes)) this.#take(message);
    if (lost > 0) this.#giveUp('answers were lost');
  }

  #take(message: Message): void {
    const pending = this.#pending;
    if (pending === undefined || message.portId !== this.portId) return;
    const { request } = pending;
    const isLast = message.sequence === request.lastSequence;
    if (message.type === NLMSG_ERROR) {
      pending.error ??= decodeError(message, request.operation(message.sequence));
      // An error of the batch as a whole is said of its first message, before any acknowledgement.
      if (!isLast && message.sequence !== 0) return;
    } else if (message.type !== NLMSG_DONE) {
      if (request.onMessage === undefined) pending.messages.push(message);
      else request.onMessage(message);
      return;
    }
    if (pending.error !== undefined) pending.reject(pending.error);
    else if (isLast) pending.resolve(pending.messages);
  }
}
