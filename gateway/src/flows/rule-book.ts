import type { Mark } from '../nft/mark.js';
import type { NumberedRule } from '../policy/in-force.js';

/** What flow records need of a rule. */
export type RuleFacts = Pick<NumberedRule, 'name' | 'priority' | 'action' | 'logging'>;

/** The rules of every generation that marks may still carry. */
export interface RuleBook {
  /** Undefined for a generation that is no longer known, and for a number it never gave. */
  ruleOf(mark: Mark): RuleFacts | undefined;
}
