import type { Decision } from './evaluate.js';
import { matchesService } from './evaluate.js';
import {
  type NumberedRule,
  type PolicyInForce,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  PROTOCOLS_ICMP,
  type RuleInForce,
} from './in-force.js';

/** Values from `first` to `last` of a protocol number or a port, and what holds for all of them. */
export interface ServiceInterval<T> {
  readonly first: number;
  readonly last: number;
  readonly to: T;
}

/** What one list of rules decides: by protocol, and by port where the protocol has ports. Covers every value. */
export interface ServiceTable {
  readonly protocols: readonly ServiceInterval<Decision | PortTable>[];
}

export interface PortTable {
  readonly protocol: number;
  readonly ports: readonly ServiceInterval<Decision>[];
}

const PROTOCOL_MAX = 255;
const PORT_MAX = 65_535;

function decide(
  rules: readonly RuleInForce[],
  byDefault: NumberedRule,
  protocol: number,
  port: number,
): Decision {
  const monitored: NumberedRule[] = [];
  for (const candidate of rules) {
    if (!matchesService(candidate.rule, protocol, port)) continue;
    if (candidate.enforced) return { decided: candidate, monitored };
    monitored.push(candidate);
  }
  return { decided: byDefault, monitored };
}

function sameDecision(a: Decision, b: Decision): boolean {
  return (
    a.decided === b.decided &&
    a.monitored.length === b.monitored.length &&
    a.monitored.every((rule, index) => rule === b.monitored[index])
  );
}

/** Cuts 0…max at the given starts, and joins neighbours for which the same holds. */
function cut<T>(
  starts: Iterable<number>,
  max: number,
  at: (value: number) => T,
  same: (a: T, b: T) => boolean,
): ServiceInterval<T>[] {
  const firsts = [...new Set([0, ...starts])].filter((first) => first <= max).sort((a, b) => a - b);
  const intervals: ServiceInterval<T>[] = [];
  for (const [index, first] of firsts.entries()) {
    const last = (firsts[index + 1] ?? max + 1) - 1;
    const to = at(first);
    const previous = intervals.at(-1);
    if (previous !== undefined && same(previous.to, to)) {
      intervals[intervals.length - 1] = { ...previous, last };
    } else {
      intervals.push({ first, last, to });
    }
  }
  return intervals;
}

function portsOf(
  rules: readonly RuleInForce[],
  byDefault: NumberedRule,
  protocol: number,
): Decision | PortTable {
  const starts = rules.flatMap(({ rule }) => rule.portRanges.flatMap(({ lo, hi }) => [lo, hi + 1]));
  const ports = cut(starts, PORT_MAX, (port) => decide(rules, byDefault, protocol, port), sameDecision);
  return ports.length === 1 ? ports[0]!.to : { protocol, ports };
}

const isDecision = (to: Decision | PortTable): to is Decision => 'decided' in to;

/** The decisions of an ordered list of rules, over all protocols and ports. */
export function serviceTable(
  rules: readonly RuleInForce[],
  byDefault: PolicyInForce['byDefault'],
): ServiceTable {
  const named = [PROTOCOL_TCP, PROTOCOL_UDP, ...PROTOCOLS_ICMP];
  const starts = named.flatMap((protocol) => [protocol, protocol + 1]);
  const protocols = cut<Decision | PortTable>(
    starts,
    PROTOCOL_MAX,
    (protocol) =>
      protocol === PROTOCOL_TCP || protocol === PROTOCOL_UDP
        ? portsOf(rules, byDefault, protocol)
        : decide(rules, byDefault, protocol, 0),
    (a, b) => isDecision(a) && isDecision(b) && sameDecision(a, b),
  );
  return { protocols };
}
