import { isInterrupted, UnknownOutcomeError } from './error.js';

const TRIES_MAX = 20;

/**
 * Asks what changes nothing that stays, and asks again where the answer was lost, or where what was listed changed
 * meanwhile. Rejects with what the last try did.
 */
export async function again<Answer>(ask: () => Promise<Answer>): Promise<Answer> {
  for (let tries = 1; ; tries++) {
    try {
      return await ask();
    } catch (error) {
      const isWorthwhile = isInterrupted(error) || error instanceof UnknownOutcomeError;
      if (!isWorthwhile || tries === TRIES_MAX) throw error;
    }
  }
}
