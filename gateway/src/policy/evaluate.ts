import type { Address } from '../net/address.js';
import { type Prefix, prefixContains } from '../net/prefix.js';
import {
  type NumberedRule,
  type PolicyInForce,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  PROTOCOLS_ICMP,
} from './in-force.js';
import type { PolicyRule } from './model.js';

/** A connection as policy sees it: the original tuple. `dstPort` counts for TCP and UDP only. */
export interface Connection {
  readonly src: Address;
  readonly dst: Address;
  /** IP protocol number. */
  readonly protocol: number;
  readonly dstPort: number;
}

/** The rule that decides, and the MONITOR rules passed on the way to it, in order. */
export interface Decision {
  readonly decided: NumberedRule;
  readonly monitored: readonly NumberedRule[];
}

/** Prefixes of each group by name. A group that is not there has no members. */
export type GroupPrefixes = ReadonlyMap<string, readonly Prefix[]>;

/** Whether a rule's protocol and port ranges take in the protocol number and port. */
export function matchesService(rule: PolicyRule, protocol: number, port: number): boolean {
  const hasPorts = protocol === PROTOCOL_TCP || protocol === PROTOCOL_UDP;
  const inRanges =
    rule.portRanges.length === 0 ||
    (hasPorts && rule.portRanges.some(({ lo, hi }) => lo <= port && port <= hi));
  switch (rule.protocol) {
    case 'TCP':
      return protocol === PROTOCOL_TCP && inRanges;
    case 'UDP':
      return protocol === PROTOCOL_UDP && inRanges;
    case 'ICMP':
      return PROTOCOLS_ICMP.includes(protocol);
    case 'ANY':
      return inRanges;
    default:
      return rule.protocol satisfies never;
  }
}

/**
 * What policy says of a connection, slow and obvious: each rule in order, each prefix of its groups in turn. The
 * compiled program is held against this. `excluded` are the gateway's own addresses, members of no group.
 */
export function evaluate(
  policy: PolicyInForce,
  groups: GroupPrefixes,
  excluded: readonly Prefix[],
  connection: Connection,
): Decision {
  const isMember = (names: readonly string[], address: Address) =>
    !excluded.some((prefix) => prefixContains(prefix, address)) &&
    names.some((name) => groups.get(name)?.some((prefix) => prefixContains(prefix, address)));
  const monitored: NumberedRule[] = [];
  for (const candidate of policy.rules) {
    const { rule } = candidate;
    const matches =
      matchesService(rule, connection.protocol, connection.dstPort) &&
      isMember(rule.src, connection.src) &&
      isMember(rule.dst, connection.dst);
    if (!matches) continue;
    if (candidate.enforced) return { decided: candidate, monitored };
    monitored.push(candidate);
  }
  return { decided: policy.byDefault, monitored };
}
