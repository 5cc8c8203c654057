import { setTimeout as delay } from 'node:timers/promises';
import type { Log } from '../log.js';
import { printableJson } from '../text.js';
import type { FlowRecord } from './record.js';

/** What became of an attempt to append lines: how many were written whole, and why not all. */
export interface Appended {
  readonly written: number;
  readonly error?: unknown;
}

/** Where lines go. Never called again before its last call has settled. */
export interface Output {
  /** Appends lines in order, each ending in a newline. Tells failure in its result and doesn't reject. */
  append(lines: readonly string[]): Promise<Appended>;
  /** The file may have been moved away: the next append starts anew by name. */
  reopen(): void;
  close(): Promise<void>;
}

export const DROP_REASONS = ['queue-full', 'write-failed', 'stopped'] as const;
export type DropReason = (typeof DROP_REASONS)[number];

/** At every moment `received` = `written` + `queued` + the sum of `droppedByReason`. */
export interface SinkCounts {
  readonly received: number;
  readonly written: number;
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
  /** Writes what is queued, for at most `stopMs`; what is left is counted as dropped. */
  stop(): Promise<void>;
}

export interface QueueOptions {
  readonly queueRecordsMax: number;
  /** Records handed to the output at once. */
  readonly batchRecordsMax: number;
  /** After this many attempts to write a batch in vain, what is left of it is dropped. */
  readonly attemptsMax: number;
  /** Pause after a failed attempt; doubled each time. */
  readonly retryMs: number;
  /** How long `stop` waits for the output. */
  readonly stopMs: number;
}

export const QUEUE_DEFAULTS: QueueOptions = {
  queueRecordsMax: 20_000,
  batchRecordsMax: 500,
  attemptsMax: 4,
  retryMs: 100,
  stopMs: 5_000,
};

/**
 * A bounded queue before an output, which accounts for every record. The newest record is the one dropped.
 */
export class QueuedSink implements FlowSink {
  readonly name: string;
  readonly #output: Output;
  readonly #log: Log;
  readonly #options: QueueOptions;
  readonly #stopping = new AbortController();
  readonly #droppedByReason: Record<DropReason, number> = { 'queue-full': 0, 'write-failed': 0, stopped: 0 };
  #queue: string[] = [];
  #received = 0;
  #written = 0;
  /**
   * Records dropped since all was well; each such episode is logged once at its start and once at its end.
   */
  #droppedInEpisode = 0;
  #draining: Promise<void> | undefined;
  #abandoned = false;

  constructor(name: string, output: Output, log: Log, options: Partial<QueueOptions> = {}) {
    this.name = name;
    this.#output = output;
    this.#log = log;
    this.#options = { ...QUEUE_DEFAULTS, ...options };
  }

  write(record: FlowRecord): void {
    this.#received++;
    if (this.#stopping.signal.aborted) this.#drop('stopped', 1);
    else if (this.#queue.length >= this.#options.queueRecordsMax) this.#drop('queue-full', 1);
    else {
      this.#queue.push(`${printableJson(record)}\n`);
      this.#draining ??= this.#drain();
    }
  }

  counts(): SinkCounts {
    const droppedByReason = { ...this.#droppedByReason };
    const dropped = Object.values(droppedByReason).reduce((sum, count) => sum + count, 0);
    return {
      received: this.#received,
      written: this.#written,
      queued: this.#queue.length,
      dropped,
      droppedByReason,
    };
  }

  reopen(): void {
    this.#output.reopen();
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    const deadline = new AbortController();
    const late = delay(this.#options.stopMs, undefined, { signal: deadline.signal }).catch(() => undefined);
    await Promise.race([this.#draining, late]);
    this.#abandoned = true;
    if (this.#queue.length > 0) this.#drop('stopped', this.#queue.splice(0).length);
    await Promise.race([this.#output.close(), late]);
    deadline.abort();
  }

  #drop(reason: DropReason, records: number, error?: unknown): void {
    this.#droppedByReason[reason] += records;
    if (this.#droppedInEpisode === 0) {
      const cause = error instanceof Error ? error : undefined;
      this.#log.error('flow records are being dropped', { sink: this.name, reason, error: cause });
    }
    this.#droppedInEpisode += records;
  }

  #wrote(records: number): void {
    this.#written += records;
    this.#queue.splice(0, records);
    if (records > 0 && this.#droppedInEpisode > 0) {
      this.#log.info('flow records are written again', { sink: this.name, dropped: this.#droppedInEpisode });
      this.#droppedInEpisode = 0;
    }
  }

  /** Until the queue is empty. Waits a turn first, so that records of one burst share a batch. */
  async #drain(): Promise<void> {
    await new Promise(setImmediate);
    while (this.#queue.length > 0 && !this.#abandoned) await this.#drainBatch();
    this.#draining = undefined;
  }

  async #drainBatch(): Promise<void> {
    let left = Math.min(this.#queue.length, this.#options.batchRecordsMax);
    for (let attempt = 1; left > 0; attempt++) {
      const { written, error } = await this.#output.append(this.#queue.slice(0, left));
      // Counted as dropped by then.
      if (this.#abandoned) return;
      this.#wrote(written);
      left -= written;
      if (left === 0) return;
      if (attempt >= this.#options.attemptsMax || this.#stopping.signal.aborted) {
        this.#queue.splice(0, left);
        return this.#drop('write-failed', left, error);
      }
      const pauseMs = this.#options.retryMs * 2 ** (attempt - 1);
      await delay(pauseMs, undefined, { signal: this.#stopping.signal }).catch(() => undefined);
    }
  }
}
