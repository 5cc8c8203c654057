import { setTimeout as delay } from 'node:timers/promises';
import { patience } from './patience.js';

const STEP_MS = 50;
const WAIT_MS_MAX = 20_000 * patience;

/** Waits until something holds, and gives it; throws with `what` when it does not come true. */
export async function until<T>(
  what: string,
  probe: () => T | undefined | false | Promise<T | undefined | false>,
): Promise<T> {
  const endMs = performance.now() + WAIT_MS_MAX;
  for (;;) {
    const value = await probe();
    if (value !== undefined && value !== false) return value;
    if (performance.now() > endMs)
      throw new Error(`Cannot go on: ${what} did not happen in ${WAIT_MS_MAX} ms`);
    await delay(STEP_MS);
  }
}
