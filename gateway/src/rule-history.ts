import type { Mark } from './nft/mark.js';
import type { NumberedRule, PolicyInForce } from './policy/in-force.js';

/** Generations whose rules are remembered. Connections of older ones were judged again, or sent nothing since. */
export const GENERATIONS_REMEMBERED_MAX = 256;

/** The rules of the newest generations, by the numbers that marks carry. */
export class RuleHistory {
  readonly #generations = new Map<number, ReadonlyMap<number, NumberedRule>>();

  /** Of a generation that is remembered already, rules that went stay: connections carry their numbers. */
  remember(generation: number, policy: PolicyInForce): void {
    const before = this.#generations.get(generation) ?? [];
    this.#generations.delete(generation);
    const rules = [policy.byDefault, ...policy.rules].map((rule) => [rule.number, rule] as const);
    this.#generations.set(generation, new Map([...before, ...rules]));
    if (this.#generations.size > GENERATIONS_REMEMBERED_MAX) {
      this.#generations.delete(this.#generations.keys().next().value!);
    }
  }

  ruleOf({ generation, rule }: Mark): NumberedRule | undefined {
    return this.#generations.get(generation)?.get(rule);
  }
}
