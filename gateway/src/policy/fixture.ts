import { type Prefix, parsePrefix } from '../net/prefix.js';
import { policyInForce } from './in-force.js';
import type { PolicyRule } from './model.js';

/** For tests: the moment at which policy is compiled. */
export const NOW = new Date('2026-11-01T00:00:00Z');

export const prefixes = (...texts: string[]): Prefix[] => texts.map(parsePrefix);

/** A rule with what a test does not care about filled in: a PERMIT of everything, enforced. */
export function rule(name: string, src: string, dst: string, more: Partial<PolicyRule> = {}): PolicyRule {
  const common = { protocol: 'ANY', portRanges: [], logging: true, enforcement: 'ENFORCE' } as const;
  return { name, priority: 0, action: 'PERMIT', src: [src], dst: [dst], ...common, ...more };
}

/** These rules in this order, then DENY. */
export const inForce = (...rules: PolicyRule[]) =>
  policyInForce({ rules, defaultAction: { action: 'DENY', logging: true } }, NOW);
