import { RULES_MAX } from '../nft/mark.js';
import { type Action, DEFAULT_RULE_NAME, type Policy, type PolicyRule } from './model.js';

/** IP protocol numbers that policy knows by name. ICMP means both, whatever the family. */
export const PROTOCOL_TCP = 6;
export const PROTOCOL_UDP = 17;
export const PROTOCOLS_ICMP: readonly number[] = [1, 58];

/** What a rule decides, under the number that conntrack marks and log records carry. */
export interface NumberedRule {
  readonly number: number;
  readonly name: string;
  readonly priority: number | undefined;
  readonly action: Action;
  readonly logging: boolean;
  /** False: a MONITOR rule, which says what it would have decided and lets evaluation go on. */
  readonly enforced: boolean;
}

/** A numbered policy rule with what it matches. */
export interface RuleInForce extends NumberedRule {
  readonly rule: PolicyRule;
}

/** The rules that count at one moment, in the order of evaluation, each with a number; 0 is the default action. */
export interface PolicyInForce {
  readonly rules: readonly RuleInForce[];
  readonly byDefault: NumberedRule;
}

/**
 * Gives rules numbers by name. A rule keeps its number for as long as it is in force without a break, and one that
 * was given up comes again as late as it can: packets and log records may still carry it.
 */
export class RuleNumbers {
  #numbers: ReadonlyMap<string, number>;
  #last: number;

  /** `numbers` are those that are in force already. */
  constructor(numbers: Iterable<readonly [string, number]> = []) {
    this.#numbers = new Map(numbers);
    this.#last = Math.max(0, ...this.#numbers.values());
  }

  /** The numbers of these rules, from 1 on: up to RULES_MAX while there are no more rules. */
  of(names: readonly string[]): ReadonlyMap<string, number> {
    const kept = names.flatMap((name) => this.#numbers.get(name) ?? []);
    const used = new Set(kept);
    const next = () => {
      const max = Math.max(RULES_MAX, names.length);
      do this.#last = this.#last >= max ? 1 : this.#last + 1;
      while (used.has(this.#last));
      used.add(this.#last);
      return this.#last;
    };
    this.#numbers = new Map(names.map((name) => [name, this.#numbers.get(name) ?? next()]));
    return this.#numbers;
  }
}

/** Leaves out DISABLEd and expired rules, and numbers the rest. */
export function policyInForce(policy: Policy, now: Date, numbers = new RuleNumbers()): PolicyInForce {
  const inForce = policy.rules
    .filter((rule) => rule.enforcement !== 'DISABLE')
    .filter((rule) => rule.expires === undefined || Date.parse(rule.expires) > now.getTime());
  const numberOf = numbers.of(inForce.map(({ name }) => name));
  const rules = inForce.map((rule) => ({
    number: numberOf.get(rule.name)!,
    name: rule.name,
    priority: rule.priority,
    action: rule.action,
    logging: rule.logging,
    enforced: rule.enforcement === 'ENFORCE',
    rule,
  }));
  return {
    rules,
    byDefault: {
      number: 0,
      name: DEFAULT_RULE_NAME,
      priority: undefined,
      action: policy.defaultAction.action,
      logging: policy.defaultAction.logging,
      enforced: true,
    },
  };
}

/** When the next rule expires: the moment to compile again. Undefined when none does. */
export function nextExpiry(policy: Policy, now: Date): Date | undefined {
  const times = policy.rules
    .filter((rule) => rule.enforcement !== 'DISABLE' && rule.expires !== undefined)
    .map((rule) => Date.parse(rule.expires!))
    .filter((time) => time > now.getTime());
  return times.length === 0 ? undefined : new Date(Math.min(...times));
}
