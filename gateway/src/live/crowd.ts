import type { Connection, ConntrackEvent } from '../conntrack/decode.js';
import type { ConnectionObserver } from '../flows/watch.js';
import type { Log } from '../log.js';
import { type Address, printAddress } from '../net/address.js';
import { FAMILIES, type Family } from '../net/family.js';
import { isJudged } from '../nft/mark.js';
import { SOURCES_MAX } from '../policy/fairness.js';

/** A source that is held back comes free when it has this share of its connections left. */
const FREE_SHARE = 0.9;
/** Changes of one moment go to the kernel together. */
const WRITE_MS = 10;
const RETRY_MS = 1_000;
/** Connections that are known to be counted during a listing; more may be counted twice until the next one. */
const COUNTED_MAX = 1_000_000;

/** Sources to be held back: all of them, whatever was said before; at most SOURCES_MAX of a family. */
export type HeldBack = Readonly<Record<Family, readonly bigint[]>>;

export interface CrowdOptions {
  /** Connections of one source address, over which it may open no more. */
  readonly connectionsMax: number;
  /** Has the kernel hold back these sources and no others. */
  readonly holdBack: (sources: HeldBack) => Promise<void>;
  readonly log: Log;
}

const perFamily = <Value>(value: () => Value): Record<Family, Value> => ({ 4: value(), 6: value() });

/**
 * Counts the connections of each source address, and has the kernel hold back one that has too many until some of
 * them have ended. In the kernel a count would cost a walk over the source's connections for each new one
 * (`nf_conncount`); from events it costs a look-up. Between the event and the kernel's set, some milliseconds, the limit
 * of new connections a second bounds by how much a source overshoots.
 */
export class Crowd implements ConnectionObserver {
  readonly #options: CrowdOptions;
  #counts = perFamily(() => new Map<bigint, number>());
  readonly #held = perFamily(() => new Set<bigint>());
  /**
   * Ids of connections that the listing under way or an event since has told of: it may hold what an event told, and
   * events come late of what it held.
   */
  #counted: Set<number> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #isStopped = false;
  /** The kernel's sets hold what is held back here, as far as is known. */
  #isTold = false;
  /** It was told that there are more sources to hold back than can be. */
  #isFull = false;

  constructor(options: CrowdOptions) {
    this.#options = options;
  }

  /** Sources that are held back. */
  get size(): number {
    return this.#held[4].size + this.#held[6].size;
  }

  /** Neither here nor in the kernel. */
  get holdsNobody(): boolean {
    return this.#isTold && this.size === 0;
  }

  /** To be called before anything is told: the kernel's sets are known to be empty. */
  knowNobodyHeld(): void {
    this.#isTold = true;
  }

  event(event: ConntrackEvent): void {
    if (event.kind === 'new') this.#openOnce(event);
    else if (event.kind === 'destroy') {
      // What was not counted yet is not in the listing either, or must not be counted by it.
      if (!this.#isFirst(event)) this.#close(event);
    }
  }

  /** Counts anew: events may have been lost that would have held a source back, or freed it. */
  list() {
    this.#counts = perFamily(() => new Map());
    this.#counted = new Set();
    const listed = (entry: Connection) => this.#openOnce(entry);
    const end = () => {
      this.#counted = undefined;
      this.#freeAll();
    };
    return { listed, end };
  }

  /** Whether nothing was told of a connection since the listing under way began. */
  #isFirst({ id }: Connection): boolean {
    const counted = this.#counted;
    if (counted === undefined || counted.has(id) || counted.size === COUNTED_MAX) return false;
    counted.add(id);
    return true;
  }

  #openOnce(entry: Connection): void {
    if (this.#isFirst(entry) || !this.#counted?.has(entry.id)) this.#open(entry);
  }

  #open({ mark, original: { src } }: Connection): void {
    if (!isJudged(mark)) return;
    const count = (this.#counts[src.family].get(src.value) ?? 0) + 1;
    this.#counts[src.family].set(src.value, count);
    if (count >= this.#options.connectionsMax) this.#hold(src, count);
  }

  #close({ mark, original: { src } }: Connection): void {
    if (!isJudged(mark)) return;
    const counts = this.#counts[src.family];
    const count = (counts.get(src.value) ?? 0) - 1;
    if (count > 0) counts.set(src.value, count);
    else counts.delete(src.value);
    if (this.#hasRoom(count)) this.#free(src);
  }

  #hasRoom(count: number): boolean {
    return count < this.#options.connectionsMax * FREE_SHARE;
  }

  #freeAll(): void {
    for (const family of FAMILIES) {
      for (const value of this.#held[family]) {
        if (this.#hasRoom(this.#counts[family].get(value) ?? 0)) this.#free({ family, value });
      }
    }
  }

  /** Has the kernel told again, where its sets may be new: those are empty. */
  tellAgain(): void {
    if (this.size > 0) this.tell();
  }

  /** Has the kernel told, whatever its sets hold. */
  tell(): void {
    this.#isTold = false;
    this.#timer ??= setTimeout(() => void this.#write(), WRITE_MS);
  }

  stop(): void {
    this.#isStopped = true;
    clearTimeout(this.#timer);
  }

  #hold(source: Address, count: number): void {
    const held = this.#held[source.family];
    if (held.has(source.value)) return;
    // It is tried again at its next connection.
    if (held.size === SOURCES_MAX) {
      if (!this.#isFull)
        this.#options.log.warn('more sources have too many connections than are held back at once', {
          sourcesMax: SOURCES_MAX,
        });
      this.#isFull = true;
      return;
    }
    held.add(source.value);
    const fields = { source: printAddress(source), connections: count };
    this.#options.log.warn('a source has too many connections, it may open no more until some end', fields);
    this.tell();
  }

  #free(source: Address): void {
    if (!this.#held[source.family].delete(source.value)) return;
    this.#isFull = false;
    this.#options.log.info('a source may open connections again', { source: printAddress(source) });
    this.tell();
  }

  async #write(): Promise<void> {
    this.#timer = undefined;
    try {
      await this.#options.holdBack({ 4: [...this.#held[4]], 6: [...this.#held[6]] });
      this.#isTold = this.#timer === undefined;
    } catch (error) {
      this.#options.log.debug('the kernel could not be told which sources to hold back', {
        error: error as Error,
      });
      if (!this.#isStopped) this.#timer ??= setTimeout(() => void this.#write(), RETRY_MS);
    }
  }
}
