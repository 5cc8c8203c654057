import { type Address, printAddress } from '../net/address.js';
import { type Prefix, prefixContains } from '../net/prefix.js';
import { type Connection, evaluate, type GroupPrefixes } from './evaluate.js';
import type { NumberedRule } from './in-force.js';
import { policyInForce } from './in-force.js';
import type { Action, Policy } from './model.js';

/** A rule as an explanation names it. */
export interface ExplainedRule {
  readonly name: string;
  /** Absent for the default action. */
  readonly priority?: number;
  readonly action: Action;
}

/** Why a connection is permitted or not. */
export interface Explanation {
  readonly verdict: Action;
  readonly reason: 'rule' | 'default';
  readonly rule: ExplainedRule;
  /** MONITOR rules passed on the way: what they would have decided. */
  readonly monitored: readonly ExplainedRule[];
  readonly src: { readonly ip: string; readonly groups: readonly string[] };
  readonly dst: { readonly ip: string; readonly groups: readonly string[] };
}

function explainedRule({ name, priority, action }: NumberedRule): ExplainedRule {
  return priority === undefined ? { name, action } : { name, priority, action };
}

function side(address: Address, groups: GroupPrefixes, excluded: readonly Prefix[]) {
  const isExcluded = excluded.some((prefix) => prefixContains(prefix, address));
  const names = [...groups]
    .filter(([, prefixes]) => !isExcluded && prefixes.some((prefix) => prefixContains(prefix, address)))
    .map(([name]) => name);
  return { ip: printAddress(address), groups: names };
}

/** Explains what policy says of a connection at a moment, by `evaluate`: slow, and what the kernel is held against. */
export function explain(
  policy: Policy,
  groups: GroupPrefixes,
  excluded: readonly Prefix[],
  connection: Connection,
  now: Date,
): Explanation {
  const { decided, monitored } = evaluate(policyInForce(policy, now), groups, excluded, connection);
  return {
    verdict: decided.action,
    reason: decided.number === 0 ? 'default' : 'rule',
    rule: explainedRule(decided),
    monitored: monitored.map(explainedRule),
    src: side(connection.src, groups, excluded),
    dst: side(connection.dst, groups, excluded),
  };
}
