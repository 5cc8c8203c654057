import { NetlinkSocket } from 'nftables-napi';
import { NetlinkError, UnknownOutcomeError } from './error.js';
import { Attributes, type Message, readMessages } from './reader.js';
import { align, NLMSG_HDRLEN } from './writer.js';

/** linux/netlink.h. */
export const NETLINK_ROUTE = 0;
export const NETLINK_NETFILTER = 12;
export const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
/** The table changed while it was listed: entries may be missing or there twice. */
const NLM_F_DUMP_INTR = 0x10;
const NLM_F_CAPPED = 0x100;
const NLM_F_ACK_TLVS = 0x200;
/** errno.h */
const EINTR = 4;
const NETLINK_CAP_ACK = 10;
const NETLINK_EXT_ACK = 11;
const NLMSGERR_ATTR_MSG = 1;
const NLMSGERR_ATTR_OFFS = 2;

/** Room for the answers to one batch in which every message fails. */
const RECEIVE_BUFFER_BYTES = 8 << 20;
const SEND_BUFFER_BYTES = 64 << 20;
/** The kernel answers within `send`, a dump goes on at once: after such a silence the rest was lost. */
const SILENCE_MS_MAX = 5_000;
/** After a loss: when nothing has come for so long, what was left of the answers has been read. */
const DRAIN_MS = 1_000;

/**
 * What an acknowledgement says (`struct nlmsgerr`: the error, the header of the message it is about, and with
 * NETLINK_EXT_ACK attributes), or the end of a dump (the error alone): undefined for success, and for any other
 * message.
 */
export function decodeError(message: Message, operation: string): NetlinkError | undefined {
  if (message.type !== NLMSG_ERROR && message.type !== NLMSG_DONE) return undefined;
  const { payload } = message;
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  const errno = -view.getInt32(0, true);
  if (errno === 0) return undefined;
  if (message.type === NLMSG_DONE) return new NetlinkError(operation, errno);
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
  /** The connection changes the sequence numbers in it: a request is made once. */
  readonly bytes: Uint8Array;
  /** An acknowledgement, error or end of dump with this sequence number ends the answer. */
  readonly lastSequence: number;
  /** What the message with a sequence number was to do, for errors. */
  readonly operation: (sequence: number) => string;
  /** Takes each message of a long dump as it comes, so that it need not be kept. */
  readonly onMessage?: (message: Message) => void;
}

/** Adds to the sequence number of each message. Cost: one pass over the messages. */
function raiseSequences(bytes: Uint8Array, by: number): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0; at + NLMSG_HDRLEN <= bytes.length; at += align(view.getUint32(at, true))) {
    view.setUint32(at + 8, view.getUint32(at + 8, true) + by, true);
  }
}

interface Pending {
  readonly request: Request;
  /** What was added to the sequence numbers of the request, so that no other's answers are taken for its own. */
  readonly sequenceBase: number;
  readonly messages: Message[];
  readonly resolve: (messages: readonly Message[]) => void;
  readonly reject: (error: Error) => void;
  error: NetlinkError | undefined;
  isLossy: boolean;
  isInterrupted: boolean;
}

/**
 * Requests and their answers over one socket, one at a time in the order they were made. Nothing
 * of it blocks: a large transaction keeps the kernel busy, not the event loop.
 */
export class NetlinkConnection {
  readonly #socket: NetlinkSocket;
  #pending: Pending | undefined;
  #turn: Promise<unknown> = Promise.resolve();
  #sequenceBase = 0;
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
    const sequenceBase = this.#sequenceBase;
    // The end of a batch counts too.
    this.#sequenceBase = (sequenceBase + request.lastSequence + 2) >>> 0;
    raiseSequences(request.bytes, sequenceBase);
    const answer = new Promise<readonly Message[]>((resolve, reject) => {
      const state = { messages: [], error: undefined, isLossy: false, isInterrupted: false };
      this.#pending = { request, sequenceBase, resolve, reject, ...state };
    });
    // Handled below; until then a rejection must not count as unhandled.
    answer.catch(() => undefined);
    try {
      await this.#socket.send(request.bytes);
      this.#awaitSilence();
      return await answer;
    } finally {
      clearTimeout(this.#silence);
      this.#silence = undefined;
      this.#pending = undefined;
    }
  }

  /** Ends the request that was sent when nothing comes any more. */
  #awaitSilence(): void {
    clearTimeout(this.#silence);
    const isLossy = this.#pending?.isLossy === true;
    const silent = () => this.#giveUp(isLossy ? 'answers were lost' : 'no answer came');
    // The process may have been busy for as long: what has come meanwhile is read first, and starts another wait.
    const timer = setTimeout(
      () => setImmediate(() => timer === this.#silence && silent()),
      isLossy ? DRAIN_MS : SILENCE_MS_MAX,
    );
    this.#silence = timer;
  }

  #giveUp(why: string): void {
    const pending = this.#pending;
    if (pending === undefined) return;
    const operation = pending.request.operation(pending.request.lastSequence);
    pending.reject(pending.error ?? new UnknownOutcomeError(`Cannot tell outcome of ${operation}: ${why}`));
  }

  #receive(bytes: Uint8Array, lost: number): void {
    if (lost > 0 && this.#pending !== undefined) this.#pending.isLossy = true;
    if (this.#silence !== undefined) this.#awaitSilence();
    for (const message of readMessages(bytes)) this.#take(message);
  }

  #take(message: Message): void {
    const pending = this.#pending;
    if (pending === undefined || message.portId !== this.portId) return;
    const { request } = pending;
    const sequence = (message.sequence - pending.sequenceBase) >>> 0;
    if (sequence > request.lastSequence) return;
    const isLast = sequence === request.lastSequence;
    if (message.flags & NLM_F_DUMP_INTR) pending.isInterrupted = true;
    if (message.type === NLMSG_ERROR || message.type === NLMSG_DONE) {
      pending.error ??= decodeError(message, request.operation(sequence));
      // An error of the batch as a whole is said of its first message, before any acknowledgement.
      if (!isLast && sequence !== 0) return;
    } else {
      if (request.onMessage === undefined) pending.messages.push(message);
      else request.onMessage(message);
      return;
    }
    // What else of the answers is there must be read first: it would keep those to the next request out.
    if (pending.isLossy) return;
    if (pending.isInterrupted) pending.error ??= new NetlinkError(request.operation(sequence), EINTR);
    if (pending.error !== undefined) pending.reject(pending.error);
    else if (isLast) pending.resolve(pending.messages);
  }
}
