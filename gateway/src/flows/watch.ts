import { setTimeout as delay } from 'node:timers/promises';
import type { Connection, ConntrackEvent } from '../conntrack/decode.js';
import { type Listener, listenConntrack } from '../conntrack/listen.js';
import type { ConntrackTable } from '../conntrack/table.js';
import type { Log } from '../log.js';
import { again } from '../netlink/again.js';
import { NETLINK_NETFILTER } from '../netlink/connection.js';
import { type SocketState, socketState } from '../netlink/socket-state.js';
import type { NflogPacket } from '../nflog/decode.js';
import { listenNflog } from '../nflog/listen.js';
import type { FlowAssembler } from './assemble.js';
import type { FlowRecord, LossSource } from './record.js';

/** Long connections told of at once: a tenth of what a sink's queue takes by default. */
export const UPDATE_RECORDS_MAX = 10_000;
/** How often it is looked how much was lost, while something is. */
const LOSS_MS = 1_000;
const NEVER = Number.POSITIVE_INFINITY;
/** Events that were on their way while a listing was made have been read so long after no more than this waits for it. */
const LISTED_MS = 1_000;
const QUEUED_BYTES_SMALL = 1 << 20;
/** Between looks at what waits. */
const QUEUE_MS = 100;

/** Keeps count of connections beside the records. */
export interface ConnectionObserver {
  event(event: ConntrackEvent): void;
  /** All connections are about to be listed, for the first time or again; events go on meanwhile. */
  list?(isFirst: boolean): {
    readonly listed: (entry: Connection) => void;
    readonly end: () => void;
  };
}

export interface WatchOptions {
  readonly logGroup: number;
  readonly table: Pick<ConntrackTable, 'forEach'>;
  readonly assembler: FlowAssembler;
  readonly observers: readonly ConnectionObserver[];
  readonly onPacket: (packet: NflogPacket) => void;
  readonly onRecord: (record: FlowRecord) => void;
  /** So many events never came; 0: as many as are not known yet. */
  readonly onLost: (source: LossSource, events: number) => void;
  /** How often long connections are told of; 0: never. */
  readonly updateSeconds: number;
  /** How many of them at once; the others' turn comes next time. */
  readonly updateRecordsMax: number;
  readonly log: Log;
}

/** What was lost of one source and is not told yet. */
interface Loss {
  since: Date;
  events: number;
  isNoted: boolean;
}

const noLoss = (): Loss => ({ since: new Date(), events: 0, isNoted: false });

/**
 * Listens to connections and logged packets, and sees to it that what the kernel could not deliver is counted, told in a
 * `loss` record, and, as soon as nothing more is lost for a second, made up for by listing the connections. Under loss that
 * goes on no listing is made: it would cost what the events lack.
 */
export class FlowWatch {
  readonly #options: WatchOptions;
  readonly #losses: Record<LossSource, Loss> = { conntrack: noLoss(), nflog: noLoss() };
  readonly #listeners: Listener[] = [];
  readonly #timers: NodeJS.Timeout[] = [];
  #listing: Promise<unknown> = Promise.resolve();
  #drops = 0;
  #needsListing = false;
  #hasListed = false;
  #isClosed = false;

  private constructor(options: WatchOptions) {
    this.#options = options;
  }

  /** Rejects where another process listens to the log group. Needs CAP_NET_ADMIN. */
  static async start(options: WatchOptions): Promise<FlowWatch> {
    const watch = new FlowWatch(options);
    try {
      await watch.#listen();
    } catch (error) {
      await watch.close();
      throw error;
    }
    watch.#every(LOSS_MS, () => watch.#tellLosses());
    if (options.updateSeconds > 0) watch.#every(options.updateSeconds * 1_000, () => watch.#tellUpdates());
    return watch;
  }

  /** Tells of the last losses before. */
  async close(): Promise<void> {
    this.#isClosed = true;
    for (const timer of this.#timers) clearInterval(timer);
    await this.#tellLosses();
    for (const listener of this.#listeners.splice(0)) listener.close();
    await this.#listing;
  }

  /** Makes known the connections that exist, so that their ends can be attributed. Cost: linear in the table. */
  async takeOver(): Promise<void> {
    await this.#list({ tellsMissed: false, updateMs: NEVER });
  }

  /** Never twice at a time. */
  #every(ms: number, work: () => Promise<void>): void {
    let isBusy = false;
    const turn = async () => {
      if (isBusy) return;
      isBusy = true;
      try {
        await work();
      } catch (error) {
        if (!this.#isClosed) this.#options.log.warn('flow records may be missing', { error: error as Error });
      }
      isBusy = false;
    };
    this.#timers.push(setInterval(() => void turn(), ms));
  }

  async #listen(): Promise<void> {
    const { logGroup, assembler, observers, onPacket } = this.#options;
    const onEvent = (event: ConntrackEvent) => {
      for (const observer of observers) observer.event(event);
      this.#tell(assembler.conntrack(event));
    };
    this.#listeners.push(listenConntrack(onEvent, () => this.#note('conntrack', 0)));
    this.#listeners.push(
      await listenNflog(logGroup, onPacket, (packets) => this.#note('nflog', packets ?? 0)),
    );
  }

  #tell(record: FlowRecord | undefined): void {
    if (record !== undefined) this.#options.onRecord(record);
  }

  #note(source: LossSource, events: number): void {
    const loss = this.#losses[source];
    loss.isNoted = true;
    loss.events += events;
  }

  async #tellLosses(): Promise<void> {
    await this.#countConntrack();
    const { assembler, onLost } = this.#options;
    const losses = { ...this.#losses };
    for (const source of ['conntrack', 'nflog'] as const) {
      this.#losses[source] = noLoss();
      const { isNoted, since, events } = losses[source];
      if (!isNoted) continue;
      onLost(source, events);
      this.#tell(assembler.lost(source, since, events === 0 ? undefined : events));
    }
    const needsListing = this.#needsListing;
    this.#needsListing = losses.conntrack.isNoted;
    if (needsListing && !losses.conntrack.isNoted && !this.#isClosed) await this.#heal();
  }

  /** Of the socket that hears of connections; undefined once it is closed. */
  async #conntrackState(): Promise<SocketState | undefined> {
    const [listener] = this.#listeners;
    return listener && socketState(NETLINK_NETFILTER, listener.portId);
  }

  async #countConntrack(): Promise<void> {
    const { drops = this.#drops } = (await this.#conntrackState()) ?? {};
    const events = (drops - this.#drops) >>> 0;
    this.#drops = drops;
    if (events > 0) this.#note('conntrack', events);
  }

  async #heal(): Promise<void> {
    const { assembler, log } = this.#options;
    const { number } = await this.#list({ tellsMissed: true, updateMs: NEVER });
    await delay(LISTED_MS);
    // What was lost meanwhile is told first, and asks for another listing.
    if (this.#isClosed || this.#losses.conntrack.isNoted) return;
    const ended = assembler.endListing(number);
    for (const record of ended) this.#tell(record);
    log.info('connections were listed after a loss of events', { ended: ended.length });
  }

  /** Until events that were queued have been read, or some were lost. */
  async #eventsRead(): Promise<void> {
    while (!this.#losses.conntrack.isNoted) {
      const { queuedBytes = 0 } = (await this.#conntrackState()) ?? {};
      if (queuedBytes <= QUEUED_BYTES_SMALL) return;
      await delay(QUEUE_MS);
    }
  }

  async #tellUpdates(): Promise<void> {
    const { updateSeconds, updateRecordsMax, log } = this.#options;
    // Whatever is older than half the time: the next turn of what was told in this one comes in the next.
    const { told } = await this.#list({ tellsMissed: false, updateMs: updateSeconds * 500 });
    if (told >= updateRecordsMax)
      log.warn('some long connections are told of later: there are more than the limit', {
        updateRecordsMax,
      });
  }

  /** Listings are made one after another. Resolves to the number of this one, and how many records it made. */
  #list(options: Parameters<FlowAssembler['listed']>[1]): Promise<{ number: number; told: number }> {
    const { assembler, observers, table, updateRecordsMax } = this.#options;
    let told = 0;
    const visit = (entry: Connection) => {
      const isFull = told >= updateRecordsMax && !options.tellsMissed;
      const record = assembler.listed(entry, isFull ? { ...options, updateMs: NEVER } : options);
      if (record === undefined) return;
      told++;
      this.#tell(record);
    };
    const listOnce = async () => {
      const number = assembler.beginListing();
      const lists = observers.flatMap((observer) => observer.list?.(!this.#hasListed) ?? []);
      await table.forEach((entry) => {
        for (const { listed } of lists) listed(entry);
        visit(entry);
      });
      this.#hasListed = true;
      if (options.tellsMissed) await this.#eventsRead();
      for (const { end } of lists) end();
      return { number, told };
    };
    const listed = this.#listing.then(() => again(listOnce));
    this.#listing = listed.catch(() => undefined);
    return listed;
  }
}
