import { setTimeout as delay } from 'node:timers/promises';
import { isBusy, isInterrupted, UnknownOutcomeError } from './error.js';

const TRIES_MAX = 20;
const BUSY_MS = 20;

/**
 * Asks what changes nothing that stays, and asks again where the answer was lost, where what was listed changed
 * meanwhile, and where a listing that was given up is still under way (EBUSY). Rejects with what the last try did.
 */
export async function again<Answer>(ask: () => Promise<Answer>): Promise<Answer> {
  for (let tries = 1; ; tries++) {
    try {
      return await ask();
    } catch (error) {
      const isWorthwhile = isInterrupted(error) || isBusy(error) || error instanceof UnknownOutcomeError;
      if (!isWorthwhile || tries === TRIES_MAX) throw error;
      if (isBusy(error)) await delay(BUSY_MS);
    }
  }
}
