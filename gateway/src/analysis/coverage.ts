import type { Connection } from '../policy/evaluate.js';
import { matchesService } from '../policy/evaluate.js';
import {
  type NumberedRule,
  type PolicyInForce,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  type RuleInForce,
} from '../policy/in-force.js';
import type { RuleList } from './partition.js';

/** A protocol that nobody names by itself (IANA: for experiments): it stands for all those. */
const PROTOCOL_OTHER = 253;
const ICMP_OF_FAMILY = { 4: 1, 6: 58 } as const;
const HTTPS = 443;
const PORT_MAX = 65_535;

/** A connection that shows something, and the rule that decides of it instead. */
export interface Shown {
  readonly connection: Connection;
  readonly by: NumberedRule;
}

/** What becomes of a rule over all connections that it matches. */
export interface RuleCoverage {
  readonly rule: RuleInForce;
  /** It matches some connection. */
  matches: boolean;
  /** A connection that it is the first enforced rule to match; for a MONITOR rule, that it is reached by. */
  reached: Connection | undefined;
  /** A connection that an enforced rule before it decides. */
  covered: Shown | undefined;
  /** The same where that rule lets pass what this one would refuse, or the other way round; and where it does not. */
  opposed: Shown | undefined;
  agreed: Shown | undefined;
  /** Without it some connection would be decided otherwise, or logged otherwise. */
  isNeeded: boolean;
  /** A connection that it decides, and what would decide it the same without it. */
  spare: Shown | undefined;
}

/** A rule that decides before another that would decide otherwise. */
export interface Opposition extends Shown {
  readonly before: RuleInForce;
  readonly after: RuleInForce;
}

export interface Coverage {
  readonly rules: readonly RuleCoverage[];
  readonly oppositions: readonly Opposition[];
  /** False: there was more to go through than asked for, and what was not seen may be. */
  readonly isWhole: boolean;
}

const isPermit = ({ action }: NumberedRule) => action === 'PERMIT';

/** Protocols and ports that some of the rules tell apart, one of each kind. */
function servicesOf(
  rules: readonly RuleInForce[],
  family: 4 | 6,
): (readonly [protocol: number, port: number])[] {
  const bounds = rules.flatMap(({ rule }) => rule.portRanges.flatMap(({ lo, hi }) => [lo, hi + 1]));
  const starts = [...new Set([0, ...bounds])].filter((port) => port <= PORT_MAX).sort((a, b) => a - b);
  const ports = starts.map((first, index) => {
    const last = (starts[index + 1] ?? PORT_MAX + 1) - 1;
    return first <= HTTPS && HTTPS <= last ? HTTPS : Math.min(Math.max(first, 1), last);
  });
  return [
    ...[PROTOCOL_TCP, PROTOCOL_UDP].flatMap((protocol) => ports.map((port) => [protocol, port] as const)),
    [ICMP_OF_FAMILY[family], 0],
    [PROTOCOL_OTHER, 0],
  ];
}

class Collector {
  readonly rules: RuleCoverage[];
  readonly oppositions: Opposition[] = [];
  readonly #seen = new Set<number>();
  readonly #policy: PolicyInForce;

  constructor(policy: PolicyInForce) {
    this.#policy = policy;
    this.rules = policy.rules.map((rule) => ({
      ...{ rule, matches: false, reached: undefined, covered: undefined },
      ...{ opposed: undefined, agreed: undefined, isNeeded: false, spare: undefined },
    }));
  }

  /** All connections like this one, of which these rules match some. */
  take(positions: readonly number[], connection: Connection): void {
    const { byDefault } = this.#policy;
    let first: RuleCoverage | undefined;
    let next: NumberedRule | undefined;
    for (const position of positions) {
      const coverage = this.rules[position]!;
      const { rule } = coverage;
      if (!matchesService(rule.rule, connection.protocol, connection.dstPort)) continue;
      coverage.matches = true;
      if (first === undefined) {
        coverage.reached ??= connection;
        if (rule.enforced) first = coverage;
      } else {
        this.#cover(coverage, position, first.rule, connection);
        if (rule.enforced) next ??= rule;
      }
    }
    if (first === undefined) return;
    const otherwise = next ?? byDefault;
    const isSame = otherwise.action === first.rule.action && otherwise.logging === first.rule.logging;
    if (isSame) first.spare ??= { connection, by: otherwise };
    else first.isNeeded = true;
  }

  #cover(coverage: RuleCoverage, position: number, by: RuleInForce, connection: Connection): void {
    const { rule } = coverage;
    coverage.covered ??= { connection, by };
    if (!rule.enforced || isPermit(rule) === isPermit(by)) {
      coverage.agreed ??= { connection, by };
      return;
    }
    coverage.opposed ??= { connection, by };
    const pair = by.number * (PORT_MAX + 1) + position;
    if (this.#seen.has(pair)) return;
    this.#seen.add(pair);
    this.oppositions.push({ before: by, after: rule, by, connection });
  }
}

/** Goes through every kind of connection that rules tell apart, up to so many rules times services. */
export function coverageOf(policy: PolicyInForce, lists: readonly RuleList[], stepsMax: number): Coverage {
  const collector = new Collector(policy);
  let steps = 0;
  for (const { positions, src, dst } of lists) {
    const rules = positions.map((position) => policy.rules[position]!);
    const services = servicesOf(rules, src.family);
    steps += services.length * rules.length;
    if (steps > stepsMax) break;
    for (const [protocol, dstPort] of services) collector.take(positions, { src, dst, protocol, dstPort });
  }
  const { rules, oppositions } = collector;
  return { rules, oppositions, isWhole: steps <= stepsMax };
}
