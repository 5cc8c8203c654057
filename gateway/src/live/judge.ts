import type { Tuple } from '../conntrack/tuple.js';
import type { Matcher } from '../matcher/matcher.js';
import { matchesService } from '../policy/evaluate.js';
import {
  type NumberedRule,
  type PolicyInForce,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  type RuleInForce,
} from '../policy/in-force.js';

/** Pairs of sides whose rules are kept ready; over it all are forgotten. */
const PAIRS_MAX = 65_536;
const SERVICES_MAX = 4_096;
const SIDES_MAX = 2 ** 26;

/** Which rules can match an address on one side, by their positions in the order of evaluation. */
interface Side {
  readonly id: number;
  readonly positions: readonly number[];
  readonly has: ReadonlySet<number>;
}

/** The sides that addresses of the same groups have. */
class Sides {
  readonly #positions = new Map<string, number[]>();
  readonly #byGroups = new Map<string, Side>();
  /** By the list itself: the matcher gives the same one for all addresses under a prefix. */
  readonly #byList = new WeakMap<readonly string[], Side>();

  constructor(rules: readonly RuleInForce[], groupsOf: (rule: RuleInForce) => readonly string[]) {
    for (const [position, rule] of rules.entries()) {
      for (const group of groupsOf(rule)) {
        const positions = this.#positions.get(group);
        if (positions === undefined) this.#positions.set(group, [position]);
        else positions.push(position);
      }
    }
  }

  of(groups: readonly string[]): Side {
    let side = this.#byList.get(groups);
    if (side === undefined) {
      side = this.#ofContent(groups);
      this.#byList.set(groups, side);
    }
    return side;
  }

  #ofContent(groups: readonly string[]): Side {
    const used = groups.filter((group) => this.#positions.has(group));
    const key = JSON.stringify(used);
    let side = this.#byGroups.get(key);
    if (side === undefined) {
      const has = new Set(used.flatMap((group) => this.#positions.get(group)!));
      side = { id: this.#byGroups.size, positions: [...has].sort((a, b) => a - b), has };
      this.#byGroups.set(key, side);
    }
    return side;
  }
}

/** The rules that can match between two sides, and what they were found to decide. */
interface Pair {
  readonly rules: readonly RuleInForce[];
  readonly decided: Map<number, NumberedRule>;
}

/**
 * Says of a connection what `evaluate` says, for a table full of them. Cost: two lookups in the matcher and two in
 * maps, where a connection of the same groups, protocol and port was judged before; about a microsecond.
 */
export class Judge {
  readonly #policy: PolicyInForce;
  readonly #matcher: Pick<Matcher, 'groupsOf'>;
  readonly #src: Sides;
  readonly #dst: Sides;
  readonly #pairs = new Map<number, Pair>();

  constructor(policy: PolicyInForce, matcher: Pick<Matcher, 'groupsOf'>) {
    this.#policy = policy;
    this.#matcher = matcher;
    this.#src = new Sides(policy.rules, ({ enforced, rule }) => (enforced ? rule.src : []));
    this.#dst = new Sides(policy.rules, ({ enforced, rule }) => (enforced ? rule.dst : []));
  }

  /** The rule that decides of connections with this original tuple. */
  decide({ src, dst, protocol, dstPort = 0 }: Tuple): NumberedRule {
    const { rules, decided } = this.#pairOf(
      this.#src.of(this.#matcher.groupsOf(src)),
      this.#dst.of(this.#matcher.groupsOf(dst)),
    );
    const hasPorts = protocol === PROTOCOL_TCP || protocol === PROTOCOL_UDP;
    const service = (protocol << 16) | (hasPorts ? dstPort : 0);
    let rule = decided.get(service);
    if (rule === undefined) {
      rule = rules.find((candidate) => matchesService(candidate.rule, protocol, dstPort));
      rule ??= this.#policy.byDefault;
      if (decided.size >= SERVICES_MAX) decided.clear();
      decided.set(service, rule);
    }
    return rule;
  }

  #pairOf(src: Side, dst: Side): Pair {
    const key = src.id * SIDES_MAX + dst.id;
    let pair = this.#pairs.get(key);
    if (pair === undefined) {
      const [few, many] = src.positions.length <= dst.positions.length ? [src, dst] : [dst, src];
      const positions = few.positions.filter((position) => many.has.has(position));
      pair = { rules: positions.map((position) => this.#policy.rules[position]!), decided: new Map() };
      if (this.#pairs.size >= PAIRS_MAX) this.#pairs.clear();
      this.#pairs.set(key, pair);
    }
    return pair;
  }
}
