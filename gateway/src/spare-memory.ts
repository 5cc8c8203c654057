import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { Log } from './log.js';

/** Growth, since memory was last given back, that is worth a pause of the event loop. */
export const GROWN_BYTES_MIN = 128 << 20;
const LOOK_MS = 10_000;
const MIB = 1 << 20;

/**
 * Collects garbage and gives the system what it took: V8 (13.6, Node 24) keeps pages that became empty for as long as the
 * process lives, unless memory is short. Cost: 0.3 s for 250 MiB of objects, in which nothing else runs.
 */
function giveBack(): void {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as NodeJS.GCFunction;
  setFlagsFromString('--no-expose-gc');
  collect({ type: 'major', execution: 'sync', flavor: 'last-resort' });
}

/** Gives back what a compilation of a large policy leaves: as much as stays in use. */
export class SpareMemory {
  readonly #isBusy: () => boolean;
  readonly #log: Log;
  #keptBytes = process.memoryUsage.rss();
  #timer: NodeJS.Timeout | undefined;

  /** `isBusy`: what is at work needs most of it again. */
  constructor(isBusy: () => boolean, log: Log) {
    this.#isBusy = isBusy;
    this.#log = log;
  }

  /** Something was applied: looks in ten seconds, when what it replaced is gone. */
  applied(): void {
    this.#timer ??= setTimeout(() => this.#look(), LOOK_MS).unref();
  }

  stop(): void {
    clearTimeout(this.#timer);
  }

  #look(): void {
    this.#timer = undefined;
    if (this.#isBusy()) {
      this.applied();
      return;
    }
    const before = process.memoryUsage.rss();
    if (before < this.#keptBytes + GROWN_BYTES_MIN) return;
    const startMs = performance.now();
    giveBack();
    this.#keptBytes = process.memoryUsage.rss();
    const seconds = Number(((performance.now() - startMs) / 1000).toFixed(3));
    this.#log.info('memory was given back', {
      mebibytes: Math.round((before - this.#keptBytes) / MIB),
      seconds,
    });
  }
}
