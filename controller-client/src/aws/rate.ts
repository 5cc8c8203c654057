import { setTimeout as delay } from 'node:timers/promises';

/** How many calls a second AWS lets an account make in one region, and how many at once after a pause. */
export interface Rate {
  readonly perSecond: number;
  readonly burst: number;
}

/** A token bucket: calls wait for their turn, in the order in which they came. */
export class TokenBucket {
  readonly #rate: Rate;
  /** When the bucket is full again, on the clock of `performance.now()`. */
  #fullAtMs = 0;

  constructor(rate: Rate) {
    this.#rate = rate;
  }

  /** Resolves when a call may be made. */
  async take(): Promise<void> {
    const { perSecond, burst } = this.#rate;
    const nowMs = performance.now();
    this.#fullAtMs = Math.max(nowMs, this.#fullAtMs) + 1000 / perSecond;
    const waitMs = this.#fullAtMs - nowMs - (1000 * burst) / perSecond;
    if (waitMs > 0) await delay(waitMs);
  }
}
