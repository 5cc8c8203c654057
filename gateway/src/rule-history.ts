import type { Mark } from './nft/mark.js';
import type { NumberedRule, PolicyInForce } from './policy/in-force.js';

/** Generations whose rules are remembered. Connections of older ones were judged again, or sent nothing since. */
export const GENERATIONS_REMEMBERED_MAX = 256;

/** The rules of the newest generations, by the numbers that marks carry. */
export class RuleHistory {
  readonly #generations = new Map<number, PolicyInForce>();

  remember(generation: number, policy: PolicyInForce): void {
    this.#generations.delete(generation);
    this.#generations.set(generation, policy);
    if (this.#generations.size > GENERATIONS_REMEMBERED_MAX) {
      this.#generations.delete(this.#generations.keys().next().value!);
    }
  }

  ruleOf({ generation, rule }: Mark): NumberedRule | undefined {
    const policy = this.#generations.get(generation);
    return rule === 0 ? policy?.byDefault : policy?.rules[rule - 1];
  }
}
