import { RULES_MAX } from '../nft/mark.js';

/**
 * Bounds on what one policy may make of the kernel; over them a change is refused by name, unless it gives no
 * connection anything that it had not. More rules have no numbers: that is refused always.
 */
export const POLICY_LIMITS = {
  rulesMax: RULES_MAX,
  classesMax: 65_536,
  pairsMax: 16_000_000,
  listsMax: 65_536,
} as const;

/** A policy needs more rules, classes, pairs or lists than the kernel program may hold. */
export class PolicyTooLargeError extends RangeError {
  override readonly name = 'PolicyTooLargeError';

  constructor(
    readonly limit: keyof typeof POLICY_LIMITS,
    readonly found: number,
  ) {
    super(`Cannot compile policy: it needs ${found} for ${limit}, the limit is ${POLICY_LIMITS[limit]}`);
  }
}
