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

/** The rules that count at one moment, numbered from 1 in the order of evaluation; number 0 is the default action. */
export interface PolicyInForce {
  readonly rules: readonly RuleInForce[];
  readonly byDefault: NumberedRule;
}

/** Leaves out DISABLEd and expired rules, and numbers the rest. */
export function policyInForce(policy: Policy, now: Date): PolicyInForce {
  const rules = policy.rules
    .filter((rule) => rule.enforcement !== 'DISABLE')
    .filter((rule) => rule.expires === undefined || Date.parse(rule.expires) > now.getTime())
    .map((rule, index) => ({
      number: index + 1,
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
