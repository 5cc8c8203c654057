import { setTimeout as delay } from 'node:timers/promises';
import type { Log } from '../log.js';
import type { Format } from './format.js';
import type { FlowRecord } from './record.js';
import type { Spill, Spilled } from './spill.js';

/**
 * What became of an attempt to deliver items: how many were, in order; of those after them, how many never will be,
 * being refused; and why not all were.
 */
export interface Appended {
  readonly written: number;
  readonly refused?: number;
  readonly error?: unknown;
}

/** Where items go. Never called again before its last call has settled. */
export interface Output {
  /** Delivers items in order. Tells failure in its result and doesn't reject. */
  append(items: readonly string[]): Promise<Appended>;
  /** A file may have been moved away: the next append starts anew by name. */
  reopen?(): void;
  close(): Promise<void>;
}

/** `no-form`: the format can't express such a record. */
export const DROP_REASONS = ['queue-full', 'refused', 'unreadable', 'stopped', 'no-form'] as const;
export type DropReason = (typeof DROP_REASONS)[number];

/** At every moment `received` = `written` + `queued` + the sum of `droppedByReason`. */
export interface SinkCounts {
  /** With those that an earlier process spilled. */
  readonly received: number;
  readonly written: number;
  /** In memory and on disk. */
  readonly queued: number;
  readonly dropped: number;
  readonly droppedByReason: Readonly<Record<DropReason, number>>;
}

/** Takes flow records and never blocks who hands them over. */
export interface FlowSink {
  readonly name: string;
  write(record: FlowRecord): void;
  counts(): SinkCounts;
  /** Opens the file again; for SIGHUP. */
  reopen(): void;
  /** Delivers what is queued, for at most `stopMs`; what is left is spilled, or else counted as dropped. */
  stop(): Promise<void>;
}

export interface QueueOptions {
  readonly queueRecordsMax: number;
  readonly queueBytesMax: number;
  /** Handed to the output at once, at most. */
  readonly batchRecordsMax: number;
  readonly batchBytesMax: number;
  /** How long a batch may wait for more. */
  readonly batchWaitMs: number;
  /** Pause after a failed attempt; doubled each time, up to `retryMsMax`. */
  readonly retryMs: number;
  readonly retryMsMax: number;
  /** How long `stop` waits for the output. */
  readonly stopMs: number;
}

const QUEUE_DEFAULTS: QueueOptions = {
  queueRecordsMax: 100_000,
  queueBytesMax: 64 << 20,
  batchRecordsMax: 1_000,
  batchBytesMax: 1 << 20,
  batchWaitMs: 0,
  retryMs: 100,
  retryMsMax: 30_000,
  stopMs: 5_000,
};

/**
 * Texts are made one piece so many at a time: of each alone it costs more than to make the text, and to leave them as the
 * parts that they were put together of costs the garbage collector more still.
 */
const FRESH_RECORDS_MAX = 64;

/** After a spill failed, or was full. */
const SPILL_RETRY_MS = 1_000;

export interface QueuedSinkParts {
  readonly name: string;
  readonly format: Format;
  readonly output: Output;
  readonly spill?: Spill | undefined;
  readonly log: Log;
}

/**
 * A bounded queue before an output, which accounts for every record and delivers at least once, in order: what fails is
 * tried again until it is taken or refused. When the queue is half full its older half goes to the spill, if there is one,
 * and comes back before anything younger. With no room left the newest record is the one dropped.
 */
export class QueuedSink implements FlowSink {
  readonly name: string;
  readonly #parts: QueuedSinkParts;
  readonly #options: QueueOptions;
  readonly #stopping = new AbortController();
  readonly #droppedByReason: Record<DropReason, number>;
  /** Taken for delivery: older than what is spilled, which is older than the queue. */
  #batch: readonly string[] = [];
  #batchSpilled: Spilled | undefined;
  #queue: string[] = [];
  /** Bytes of each, in UTF-8. */
  #bytes: number[] = [];
  /** The youngest, one after the other, and where each ends. They count by their length until they are one piece. */
  #fresh = '';
  #freshEnds: number[] = [];
  #queueBytes = 0;
  #received: number;
  #written = 0;
  /** On their way to the disk. */
  #spilling = 0;
  #spillAgainMs = 0;
  /** Records dropped since all was well; each such episode is logged once at its start and once at its end. */
  #droppedInEpisode = 0;
  #isFailing = false;
  #delivering: Promise<void> | undefined;
  #overflowing: Promise<void> | undefined;
  #wake: () => void = () => undefined;
  #isAbandoned = false;

  constructor(parts: QueuedSinkParts, options: Partial<QueueOptions> = {}) {
    this.name = parts.name;
    this.#parts = parts;
    this.#options = { ...QUEUE_DEFAULTS, ...options };
    this.#droppedByReason = { 'queue-full': 0, refused: 0, unreadable: 0, stopped: 0, 'no-form': 0 };
    this.#received = parts.spill?.records ?? 0;
    if (this.#received > 0) this.#delivering = this.#deliver();
  }

  write(record: FlowRecord): void {
    this.#received++;
    const refusal = this.#accept(record);
    if (refusal === 'no-form') this.#droppedByReason['no-form']++;
    else if (refusal !== undefined) this.#drop(refusal, 1);
  }

  /** Queues a record, or says why not. */
  #accept(record: FlowRecord): DropReason | undefined {
    if (this.#stopping.signal.aborted) return 'stopped';
    const item = this.#parts.format(record);
    if (item === undefined) return 'no-form';
    const { queueRecordsMax, queueBytesMax } = this.#options;
    const records = this.#waiting + this.#batch.length + this.#spilling;
    if (records >= queueRecordsMax || this.#queueBytes + item.length > queueBytesMax) return 'queue-full';
    this.#fresh += item;
    this.#freshEnds.push(this.#fresh.length);
    this.#queueBytes += item.length;
    if (this.#freshEnds.length === FRESH_RECORDS_MAX) this.#settle();
    if (this.#isBatchFull()) this.#wake();
    this.#delivering ??= this.#deliver();
    const { spill } = this.#parts;
    if (spill !== undefined && this.#isHalfFull() && performance.now() >= this.#spillAgainMs)
      this.#overflowing ??= this.#overflow(spill);
    return undefined;
  }

  /** Makes the fresh texts one piece, and cuts it up for the queue: a slice of a text costs no copy. */
  #settle(): void {
    const text = this.#fresh;
    const isAscii = Buffer.byteLength(text) === text.length;
    let start = 0;
    for (const end of this.#freshEnds) {
      const item = text.slice(start, end);
      const bytes = isAscii ? item.length : Buffer.byteLength(item);
      this.#queue.push(item);
      this.#bytes.push(bytes);
      this.#queueBytes += bytes - item.length;
      start = end;
    }
    this.#fresh = '';
    this.#freshEnds = [];
  }

  /** In the queue. */
  get #waiting(): number {
    return this.#queue.length + this.#freshEnds.length;
  }

  counts(): SinkCounts {
    const droppedByReason = { ...this.#droppedByReason };
    const dropped = Object.values(droppedByReason).reduce((sum, count) => sum + count, 0);
    const onDisk = this.#parts.spill?.records ?? 0;
    const queued = this.#waiting + this.#batch.length + this.#spilling + onDisk;
    return { received: this.#received, written: this.#written, queued, dropped, droppedByReason };
  }

  reopen(): void {
    this.#parts.output.reopen?.();
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    this.#wake();
    const deadline = new AbortController();
    const late = delay(this.#options.stopMs, undefined, { signal: deadline.signal }).catch(() => undefined);
    await Promise.race([this.#delivering, late]);
    this.#isAbandoned = true;
    await this.#overflowing;
    await this.#keepRest();
    await Promise.race([this.#parts.output.close(), late]);
    deadline.abort();
  }

  async #keepRest(): Promise<void> {
    const rest = [...this.#batch, ...this.#shift(Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY)];
    this.#batch = [];
    if (rest.length === 0) return;
    this.#spilling = rest.length;
    await this.#batchSpilled?.done();
    const isKept = await this.#parts.spill?.append(rest).catch(() => false);
    this.#spilling = 0;
    if (isKept !== true) this.#drop('stopped', rest.length);
  }

  #isBatchFull(): boolean {
    const { batchRecordsMax, batchBytesMax } = this.#options;
    return this.#waiting >= batchRecordsMax || this.#queueBytes >= batchBytesMax;
  }

  #isHalfFull(): boolean {
    const { queueRecordsMax, queueBytesMax } = this.#options;
    return this.#waiting * 2 >= queueRecordsMax || this.#queueBytes * 2 >= queueBytesMax;
  }

  #drop(reason: DropReason, records: number, error?: unknown): void {
    this.#droppedByReason[reason] += records;
    if (this.#droppedInEpisode === 0) {
      const { queueRecordsMax, queueBytesMax } = this.#options;
      const limits = reason === 'queue-full' ? { queueRecordsMax, queueBytesMax } : {};
      const cause = error instanceof Error ? { error } : {};
      this.#parts.log.error('flow records are being dropped', {
        sink: this.name,
        reason,
        ...limits,
        ...cause,
      });
    }
    this.#droppedInEpisode += records;
  }

  /** Removes the first items of the queue: as many as a batch holds. */
  #shift(recordsMax: number, bytesMax: number): string[] {
    this.#settle();
    let [records, bytes] = [0, 0];
    for (const itemBytes of this.#bytes) {
      if (records === recordsMax || (records > 0 && bytes + itemBytes > bytesMax)) break;
      bytes += itemBytes;
      records++;
    }
    this.#queueBytes -= bytes;
    this.#bytes.splice(0, records);
    return this.#queue.splice(0, records);
  }

  /** Until nothing waits. Waits a turn first, so that records of one burst share a batch. */
  async #deliver(): Promise<void> {
    await new Promise(setImmediate);
    const { retryMs, retryMsMax } = this.#options;
    const { signal } = this.#stopping;
    let pauseMs = retryMs;
    while (!this.#isAbandoned && (this.#batch.length > 0 || (await this.#take()))) {
      if (await this.#attempt()) {
        pauseMs = retryMs;
        continue;
      }
      if (signal.aborted) break;
      await delay(pauseMs, undefined, { signal }).catch(() => undefined);
      pauseMs = Math.min(pauseMs * 2, retryMsMax);
    }
    this.#delivering = undefined;
  }

  /** Takes the next batch, from the disk while anything is there; false where nothing waits. */
  async #take(): Promise<boolean> {
    const { spill } = this.#parts;
    // What is being spilled is older than the rest of the queue.
    await this.#overflowing;
    const spilled = await spill?.read();
    if (this.#isAbandoned) return false;
    if (spilled !== undefined) {
      spilled.take();
      this.#batch = spilled.items;
      this.#batchSpilled = spilled;
      if (spilled.unreadable > 0) this.#drop('unreadable', spilled.unreadable);
      if (spilled.items.length === 0) await this.#finishSpilled();
      return this.#batch.length > 0 || this.#take();
    }
    if (this.#waiting === 0) return false;
    if (!this.#isBatchFull() && !this.#stopping.signal.aborted) await this.#moreRecords();
    const { batchRecordsMax, batchBytesMax } = this.#options;
    this.#batch = this.#shift(batchRecordsMax, batchBytesMax);
    return this.#batch.length > 0;
  }

  async #moreRecords(): Promise<void> {
    const { batchWaitMs } = this.#options;
    if (batchWaitMs === 0) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, batchWaitMs);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /** One try to deliver what was taken; whether it was taken or refused whole. */
  async #attempt(): Promise<boolean> {
    const items = this.#batch.slice(0, this.#options.batchRecordsMax);
    const { written, refused = 0, error } = await this.#parts.output.append(items);
    // Kept or counted as dropped by then.
    if (this.#isAbandoned) return false;
    this.#batch = this.#batch.slice(written + refused);
    this.#written += written;
    if (refused > 0) this.#drop('refused', refused, error);
    if (this.#batch.length === 0) await this.#finishSpilled();
    const isDone = written + refused === items.length;
    this.#tellState(isDone, written > 0, error);
    return isDone;
  }

  async #finishSpilled(): Promise<void> {
    const spilled = this.#batchSpilled;
    this.#batchSpilled = undefined;
    await spilled
      ?.done()
      .catch((error: Error) => this.#parts.log.warn('spilled records come again', { error }));
  }

  #tellState(isDone: boolean, hasWritten: boolean, error: unknown): void {
    const { log } = this.#parts;
    const sink = this.name;
    if (!isDone && !this.#isFailing) {
      const cause = error instanceof Error ? { error } : {};
      log.warn('flow records wait: the sink does not take them', { sink, ...cause });
    }
    if (isDone && hasWritten && (this.#isFailing || this.#droppedInEpisode > 0)) {
      log.info('flow records are written again', { sink, dropped: this.#droppedInEpisode });
      this.#droppedInEpisode = 0;
    }
    this.#isFailing = !isDone;
  }

  /** Moves the older half of the queue to the disk. */
  async #overflow(spill: Spill): Promise<void> {
    const items = this.#shift(Math.ceil(this.#waiting / 2), Number.POSITIVE_INFINITY);
    this.#spilling = items.length;
    const isKept = await spill.append(items).catch((error: Error) => {
      this.#parts.log.warn('flow records could not be spilled', { sink: this.name, error });
      return false;
    });
    if (!isKept) {
      const bytes = items.map((item) => Buffer.byteLength(item));
      this.#queue = [...items, ...this.#queue];
      this.#bytes = [...bytes, ...this.#bytes];
      this.#queueBytes += bytes.reduce((sum, count) => sum + count, 0);
      this.#spillAgainMs = performance.now() + SPILL_RETRY_MS;
    }
    this.#spilling = 0;
    this.#overflowing = undefined;
  }
}
