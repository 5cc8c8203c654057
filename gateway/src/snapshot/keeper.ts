import { createHash } from 'node:crypto';
import { watch } from 'node:fs';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Log } from '../log.js';
import { openSnapshotFolder, storeSnapshot } from './folder.js';
import { MANIFEST_FILE } from './format.js';
import { readSnapshot, type Snapshot, SnapshotError } from './read.js';

/** How often the manifest is looked at where no notification tells of its change. */
const POLL_MS = 2_000;

export interface KeeperOptions {
  /** The folder that the controller client writes. */
  readonly wanted: string;
  /** The folder of our own that holds the last snapshot that was in force. */
  readonly lastGood: string;
  readonly log: Log;
  readonly onSnapshot: (snapshot: Snapshot) => void;
  readonly onRefused: (error: Error) => void;
}

const isMissing = (error: unknown) => error instanceof Error && 'code' in error && error.code === 'ENOENT';
const digest = (snapshot: Snapshot) => createHash('sha256').update(snapshot.manifestBytes).digest('hex');

/** Follows the wanted snapshot, refuses what does not verify or goes back, and keeps the last good one on disk. */
export class SnapshotKeeper {
  readonly #options: KeeperOptions;
  #newest: Snapshot | undefined;
  #seen = '';
  #refused = '';
  #reading: Promise<void> = Promise.resolve();
  #keeping: Promise<void> = Promise.resolve();
  #stop: () => void = () => {};

  constructor(options: KeeperOptions) {
    this.#options = options;
  }

  /** The newest snapshot that was accepted. */
  get newest(): Snapshot | undefined {
    return this.#newest;
  }

  /** The snapshot that was last in force, if there is one that verifies. */
  async loadLastGood(): Promise<Snapshot | undefined> {
    try {
      this.#newest = await readSnapshot(this.#options.lastGood);
      return this.#newest;
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

  /** Stores a snapshot that has come into force, to be enforced at the next start before anything else. */
  keep(snapshot: Snapshot): Promise<void> {
    this.#keeping = this.#keeping
      .then(async () => {
        const store = await openSnapshotFolder(this.#options.lastGood);
        await storeSnapshot(store, snapshot.bodies, snapshot.manifestBytes);
      })
      .catch((error: Error) => {
        this.#options.log.error('the snapshot in force could not be stored as the last good one', { error });
      });
    return this.#keeping;
  }

  async #look(): Promise<void> {
    try {
      const { ino, mtimeMs, size } = await stat(join(this.#options.wanted, MANIFEST_FILE));
      const seen = `${ino} ${mtimeMs} ${size}`;
      if (seen === this.#seen) return;
      this.#accept(await readSnapshot(this.#options.wanted, this.#newest));
      this.#seen = seen;
      this.#refused = '';
    } catch (error) {
      if (!isMissing(error)) this.#refuse(error as Error);
    }
  }

  #accept(snapshot: Snapshot): void {
    const newest = this.#newest;
    if (newest !== undefined) {
      if (digest(newest) === digest(snapshot)) return;
      if (snapshot.revision <= newest.revision) {
        throw new SnapshotError(
          `Cannot take snapshot: its revision is ${snapshot.revision}, the newest is ${newest.revision} and revisions only grow; to start over, stop the gateway and remove ${this.#options.lastGood}`,
        );
      }
    }
    this.#newest = snapshot;
    this.#options.onSnapshot(snapshot);
  }

  /** Tried again at every look, told once. */
  #refuse(error: Error): void {
    if (error.message === this.#refused) return;
    this.#refused = error.message;
    this.#options.log.error('a snapshot was refused, the one in force stays', { error });
    this.#options.onRefused(error);
  }
}
