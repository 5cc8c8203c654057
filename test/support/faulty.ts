import { setImmediate as turn } from 'node:timers/promises';
import { NetlinkConnection } from 'sluice-gateway/netlink/connection.js';
import { Batch } from 'sluice-gateway/nft/batch.js';
import { here } from './namespace.js';

type Request = Parameters<NetlinkConnection['request']>[0];
type Answer = Awaited<ReturnType<NetlinkConnection['request']>>;

export const STAGES = ['load', 'edit', 'switch', 'collect'] as const;
export type Stage = (typeof STAGES)[number];

/** Which part of an application a request is; undefined for one that only asks. */
function stageOf({ operation, lastSequence }: Request): Stage | undefined {
  const operations = Array.from({ length: lastSequence }, (_, index) => operation(index + 1));
  const has = (start: string) => operations.some((text) => text.startsWith(start));
  if (has('flush chain "forward"')) return 'switch';
  if (has('add map') || has('add table')) return 'load';
  if (has('delete elements of') && has('add elements to')) return 'edit';
  if (has('add elements to')) return 'load';
  return has('delete') || has('flush') ? 'collect' : undefined;
}

/** What happens once to a request of a stage. */
export interface Fault {
  readonly stage: Stage;
  /** The kernel has done what was asked; or has not, and never sees it. */
  readonly isDone: boolean;
  /** Undefined: the kernel's answers do not fit into the socket's buffer. */
  readonly error: Error | undefined;
}

/** Answers that do not fit: each takes almost a kilobyte of the buffer. */
const ANSWERS = 40_000;
const NLM_F_ACK = 0x4;
const HEADER_BYTES = 16;
const FLAGS_OFFSET = 6;
const MARKER = 'overflowed';

/** The request with so many more messages in front, which change nothing, that their answers overflow the buffer. */
function overflowing(request: Request): Request {
  const bytes = Buffer.from(request.bytes);
  const beginBytes = bytes.readUInt32LE(0);
  const padding = Buffer.from(new Batch().addTable().addCounter(MARKER).finish().bytes);
  const [table, counter] = [padding.subarray(beginBytes), padding.subarray(beginBytes)].map((from, index) => {
    const skipped = index === 0 ? 0 : from.readUInt32LE(0);
    const message = Buffer.from(from.subarray(skipped, skipped + from.readUInt32LE(skipped)));
    message.writeUInt16LE(message.readUInt16LE(FLAGS_OFFSET) | NLM_F_ACK, FLAGS_OFFSET);
    message.writeUInt32LE(1, HEADER_BYTES / 2);
    return message;
  });
  const repeated = Buffer.concat(Array.from({ length: ANSWERS }, () => table!));
  return {
    ...request,
    bytes: Buffer.concat([bytes.subarray(0, beginBytes), counter!, repeated, bytes.subarray(beginBytes)]),
  };
}

/** A connection on which one request goes wrong, and which then holds all others back until it is let go on. */
export class FaultyConnection extends NetlinkConnection {
  #fault: Fault | undefined;
  #struck: (() => void) | undefined;
  #gate: Promise<void> = Promise.resolve();
  #open: () => void = () => {};

  /** Resolves when the fault has struck. */
  strike(fault: Fault): Promise<void> {
    this.#fault = fault;
    return new Promise((resolve) => {
      this.#struck = resolve;
    });
  }

  /** Lets the requests behind the fault through. */
  goOn(): void {
    this.#open();
  }

  override async request(request: Request): Promise<Answer> {
    const fault = this.#fault;
    if (fault === undefined || stageOf(request) !== fault.stage) {
      await this.#gate;
      return super.request(request);
    }
    this.#fault = undefined;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#gate = promise;
    this.#open = resolve;
    try {
      if (fault.error === undefined) return await this.#overflow(request);
      if (fault.isDone) await super.request(request);
      throw fault.error;
    } finally {
      this.#struck?.();
    }
  }

  async #overflow(request: Request): Promise<Answer> {
    const answer = super.request(overflowing(request));
    answer.catch(() => undefined);
    for (let turns = 0; turns < 10; turns++) await turn();
    // The event loop stands still until the kernel has put all its answers into the socket.
    while (!here.run('nft', ['list', 'counters', 'table', 'inet', 'sluice']).includes(MARKER));
    here.run('nft', ['add table inet barrier; delete table inet barrier']);
    return answer;
  }
}
