import type { Mark } from './nft/mark.js';
import type { NumberedRule, PolicyInForce } from './policy/in-force.js';

/** Generations whose rules are remembered. Connections of older ones were judged again, or sent nothing since. */
export const GENERATIONS_REMEMBERED_MAX = 256;

/** The rules of the newest generations, by the numbers that marks carry. */
export class RuleHistory {
  readonly #generations = new Map<number, ReadonlyMap<number, NumberedRule>>();

  remember(generation: number, policy: PolicyInForce): void {
    this.#generations.delete(generation);
    const rules = [policy.byDefault, ...policy.rules];
    this.#generations.set(generation, new Map(rules.map((rule) => [rule.number, rule])));
    if (this.#generations.size > GENERATIONS_REMEMBERED_MAX) {
      this.#generations.delete(this.#generations.keys().next().value!);
    }
  }

  ruleOf({ generation, rule }: Mark): NumberedRule | undefined {
    return this.#generations.get(generation)?.get(rule);
  }
}
