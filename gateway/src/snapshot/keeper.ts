import { createHash } from 'node:crypto';
import { statSync, watch } from 'node:fs';
import { join } from 'node:path';
import type { Log } from '../log.js';
import { MANIFEST_FILE } from './format.js';
import { History, type HistoryEntry } from './history.js';
import { readSnapshot, type Snapshot, SnapshotError } from './read.js';

/** How often the manifest is looked at where no notification tells of its change. */
const POLL_MS = 2_000;
const LAST_GOOD_FOLDER = 'last-good';

export interface KeeperOptions {
  /** The folder that the controller client writes. */
  readonly wanted: string;
  /** The folder of our own, in which the last snapshot that was in force is. */
  readonly statePath: string;
  readonly log: Log;
  readonly onSnapshot: (snapshot: Snapshot, readSeconds: number) => void;
  readonly onRefused: (error: Error) => void;
}

const isMissing = (error: unknown) => error instanceof Error && 'code' in error && error.code === 'ENOENT';
const digest = (snapshot: Snapshot) => createHash('sha256').update(snapshot.manifestBytes).digest('hex');

/** Follows the wanted snapshot, refuses what does not verify or goes back, and keeps the last good one on disk. */
export class SnapshotKeeper {
  readonly #options: KeeperOptions;
  readonly #lastGood: string;
  readonly history: History;
  #newest: Snapshot | undefined;
  /** What is in force is not the newest that there was. */
  #revisionMin = 0;
  #seen = '';
  #refused = '';
  #reading: Promise<void> = Promise.resolve();
  #keeping: Promise<void> = Promise.resolve();
  /** The newest that waits to be stored. */
  #toKeep: Parameters<History['store']> | undefined;
  #stop: () => void = () => {};

  constructor(options: KeeperOptions) {
    this.#options = options;
    this.#lastGood = join(options.statePath, LAST_GOOD_FOLDER);
    this.history = new History(this.#lastGood, options.log);
  }

  /** The newest snapshot that was accepted. */
  get newest(): Snapshot | undefined {
    return this.#newest;
  }

  /**
   * The snapshot that was last in force, if there is one that verifies. `newestThen` gives the revision of the newest
   * where that was another: it may come again.
   */
  async loadLastGood(newestThen?: (lastGood: Snapshot) => number | undefined): Promise<Snapshot | undefined> {
    try {
      const lastGood = await readSnapshot(this.#lastGood);
      const newest = newestThen?.(lastGood);
      if (newest === undefined) this.#newest = lastGood;
      else this.#revisionMin = newest;
      return lastGood;
    } catch (error) {
      if (!isMissing(error))
        this.#options.log.error('the last good snapshot is unusable', { error: error as Error });
      return undefined;
    }
  }

  /** Looks at the wanted snapshot now and whenever it changes. */
  async start(): Promise<void> {
    const look = () => {
      this.#reading = this.#reading.then(() => this.#look());
      return this.#reading;
    };
    const timer = setInterval(look, POLL_MS);
    let watcher: { close(): void } | undefined;
    try {
      watcher = watch(this.#options.wanted, (_event, name) => {
        if (name === MANIFEST_FILE) void look();
      });
    } catch (error) {
      this.#options.log.debug('the snapshot folder is looked at by time alone', { error: error as Error });
    }
    this.#stop = () => {
      clearInterval(timer);
      watcher?.close();
    };
    await look();
  }

  stop(): void {
    this.#stop();
  }

  /**
   * Stores a snapshot that has come into force, to be enforced at the next start before anything else, and to go back to
   * where there is an entry. Of several that wait for the disk the newest is stored.
   */
  keep(snapshot: Snapshot, entry?: Omit<HistoryEntry, 'manifest'>): Promise<void> {
    const isWaiting = this.#toKeep !== undefined;
    this.#toKeep = [snapshot, entry];
    if (isWaiting) return this.#keeping;
    this.#keeping = this.#keeping
      .then(() => {
        const next = this.#toKeep!;
        this.#toKeep = undefined;
        return this.history.store(...next);
      })
      .catch((error: Error) => {
        this.#options.log.error('the snapshot in force could not be stored as the last good one', { error });
      });
    return this.#keeping;
  }

  /** The same, and rejects where it is not on disk. */
  async store(snapshot: Snapshot, entry: Omit<HistoryEntry, 'manifest'>): Promise<void> {
    const stored = this.#keeping.then(() => this.history.store(snapshot, entry));
    this.#keeping = stored.catch(() => undefined);
    return stored;
  }

  async #look(): Promise<void> {
    try {
      const { ino, mtimeMs, size } = statSync(join(this.#options.wanted, MANIFEST_FILE));
      const seen = `${ino} ${mtimeMs} ${size}`;
      if (seen === this.#seen) return;
      const startMs = performance.now();
      const snapshot = await readSnapshot(this.#options.wanted, this.#newest);
      this.#accept(snapshot, (performance.now() - startMs) / 1000);
      this.#seen = seen;
      this.#refused = '';
    } catch (error) {
      if (!isMissing(error)) this.#refuse(error as Error);
    }
  }

  #accept(snapshot: Snapshot, readSeconds: number): void {
    const newest = this.#newest;
    if (newest !== undefined && digest(newest) === digest(snapshot)) return;
    const revisionMin = newest === undefined ? this.#revisionMin : newest.revision + 1;
    if (snapshot.revision < revisionMin) {
      throw new SnapshotError(
        `Cannot take snapshot: its revision is ${snapshot.revision}, the newest is ${newest?.revision ?? revisionMin} and revisions only grow; to start over, stop the gateway and remove ${this.#lastGood}`,
      );
    }
    this.#newest = snapshot;
    this.#options.onSnapshot(snapshot, readSeconds);
  }

  /** Tried again at every look, told once. */
  #refuse(error: Error): void {
    if (error.message === this.#refused) return;
    this.#refused = error.message;
    this.#options.log.error('a snapshot was refused, the one in force stays', { error });
    this.#options.onRefused(error);
  }
}
