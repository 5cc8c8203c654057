import { type Address, printAddress } from '../net/address.js';
import { FAMILIES, type Family } from '../net/family.js';
import { type Prefix, prefixContains, prefixInterval } from '../net/prefix.js';
import type { Connection } from '../policy/evaluate.js';
import { matchesService } from '../policy/evaluate.js';
import { type PolicyInForce, PROTOCOL_TCP, PROTOCOL_UDP, type RuleInForce } from '../policy/in-force.js';
import { DEFAULT_RULE_NAME, isSystemGroup } from '../policy/model.js';
import type { SnapshotGroup } from '../snapshot/read.js';
import { type Coverage, coverageOf, type RuleCoverage } from './coverage.js';
import type { Finding } from './output.js';
import { partition } from './partition.js';

export interface LintInput {
  readonly policy: PolicyInForce;
  readonly groups: readonly SnapshotGroup[];
  /** How often each rule decided, by its name; undefined where no gateway was asked. */
  readonly decisions?: Readonly<Record<string, number>> | undefined;
}

/** Above these a finding of kind `limit` says what was not looked for, or not told. */
export const LINT_LIMITS = {
  /** Source classes times destination classes. */
  pairsMax: 16_000_000,
  /** Rules times services that they tell apart. */
  stepsMax: 100_000_000,
  /** Of one kind. */
  findingsMax: 1_000,
} as const;
export type LintLimits = Readonly<Record<keyof typeof LINT_LIMITS, number>>;

/** A destination of at least half of all IPv4 addresses is broad. */
const BROAD_ADDRESSES = 1n << 31n;
const DNS_PORT = 53;
const NTP_PORT = 123;

const quoted = (name: string) => JSON.stringify(name);
const ruleName = ({ name }: { readonly name: string }) =>
  name === DEFAULT_RULE_NAME ? 'the default action' : `rule ${quoted(name)}`;
const proofOf = ({ src, dst, protocol, dstPort }: Connection): NonNullable<Finding['proof']> => ({
  ...{ src: printAddress(src), dst: printAddress(dst), protocol, port: dstPort },
});

type Told = Pick<Finding, 'kind' | 'level' | 'message'> & {
  readonly rules?: readonly string[];
  readonly groups?: readonly string[];
  readonly by?: Connection | undefined;
};

function finding({ kind, level, message, rules = [], groups = [], by }: Told): Finding {
  return {
    id: [kind, ...rules, ...groups].join('/'),
    ...{ kind, level, message, rules: [...rules], groups: [...groups] },
    ...(by !== undefined && { proof: proofOf(by) }),
  };
}

function holds({ parts }: SnapshotGroup, address: Address): boolean {
  return parts.some((part) => part.some((prefix) => prefixContains(prefix, address)));
}

/** How many IPv4 addresses ascending prefixes cover. */
function addresses4(prefixes: readonly Prefix[]): bigint {
  let [count, end] = [0n, -1n];
  for (const prefix of prefixes) {
    const { family, first, last } = prefixInterval(prefix);
    if (family !== 4 || last <= end) continue;
    count += last - first + 1n;
    end = last;
  }
  return count;
}

/** What becomes of one rule. */
function ofRule(coverage: RuleCoverage): Finding | undefined {
  const { rule, matches, reached, covered, opposed, agreed, isNeeded, spare } = coverage;
  const rules = [rule.name];
  if (!matches) {
    const message = `${ruleName(rule)} matches no connection: a side of it holds no address, or the sides share no family`;
    return finding({ kind: 'unreachable', level: 'warning', message, rules });
  }
  if (reached === undefined && agreed === undefined && opposed !== undefined) {
    const message = `${ruleName(rule)} never decides: rules before it match all that it does, and ${ruleName(opposed.by)} says ${opposed.by.action} where it says ${rule.action}`;
    return finding({ kind: 'contradictory', level: 'warning', message, rules, by: opposed.connection });
  }
  const shadow = agreed ?? covered;
  if (reached === undefined && shadow !== undefined) {
    const message = `${ruleName(rule)} never decides: rules before it match all that it does, such as ${ruleName(shadow.by)}`;
    return finding({ kind: 'shadowed', level: 'warning', message, rules, by: shadow.connection });
  }
  if (rule.enforced && !isNeeded && spare !== undefined) {
    const message = `${ruleName(rule)} changes nothing: without it ${ruleName(spare.by)} says ${spare.by.action} too`;
    return finding({ kind: 'redundant', level: 'info', message, rules, by: spare.connection });
  }
  return undefined;
}

class Linter {
  readonly #limits: LintLimits;
  readonly #policy: PolicyInForce;
  readonly #groups: ReadonlyMap<string, SnapshotGroup>;
  readonly #named: ReadonlySet<string>;
  readonly #decisions: LintInput['decisions'];

  constructor({ policy, groups, decisions }: LintInput, limits: LintLimits) {
    this.#limits = limits;
    this.#policy = policy;
    this.#groups = new Map(groups.map((group) => [group.name, group]));
    this.#named = new Set(policy.rules.flatMap(({ rule }) => [...rule.src, ...rule.dst]));
    this.#decisions = decisions;
  }

  *findings(): Generator<Finding> {
    yield* this.#ofGroups();
    const parts = new Map([...this.#groups].map(([name, { parts }]) => [name, parts]));
    const { pairsMax, stepsMax } = this.#limits;
    const { lists, pairs } = partition(this.#policy, parts, pairsMax);
    const coverage = coverageOf(this.#policy, lists, stepsMax);
    if (pairs > pairsMax) {
      yield this.#limit(`${pairs} pairs of classes of addresses, the limit is ${pairsMax}`);
    } else if (!coverage.isWhole) {
      yield this.#limit(`more than ${stepsMax} rules times services`);
    } else {
      // What a rule that never decides would do in another's place makes that other not redundant.
      const idle = new Set(coverage.rules.flatMap(({ rule, reached }) => (reached ? [] : [rule.name])));
      for (const one of coverage.rules.filter(({ rule }) => this.#isResolved(rule))) {
        const found = ofRule(one);
        if (found?.kind !== 'redundant' || !idle.has(one.spare!.by.name)) yield* found ? [found] : [];
      }
      yield* this.#overlaps(coverage, idle);
    }
    yield* this.#broad(coverage, pairs <= pairsMax && coverage.isWhole);
    yield* this.#neverHit();
    yield* this.#forgotten();
  }

  #limit(what: string): Finding {
    const message = `shadowed, redundant and contradictory rules and overlaps are not looked for: policy has ${what}`;
    return finding({ kind: 'limit', level: 'info', message });
  }

  #isResolved({ rule }: RuleInForce): boolean {
    return [...rule.src, ...rule.dst].every((name) => this.#groups.get(name)?.resolved !== false);
  }

  *#ofGroups(): Generator<Finding> {
    for (const name of this.#named) {
      const group = this.#groups.get(name);
      if (group === undefined) continue;
      if (!group.resolved) {
        const message = `group ${quoted(name)} is not resolved: rules that name it are not judged`;
        yield finding({ kind: 'unresolved-group', level: 'info', message, groups: [name] });
      } else if (group.parts.every((part) => part.length === 0)) {
        const message = `group ${quoted(name)} holds no address: nothing matches it`;
        yield finding({ kind: 'empty-group', level: 'warning', message, groups: [name] });
      }
    }
  }

  /** The groups of two rules that hold the same address under different names: who wrote one may not know the other. */
  *#overlaps({ oppositions }: Coverage, idle: ReadonlySet<string>): Generator<Finding> {
    for (const { before, after, connection } of oppositions) {
      if (idle.has(after.name)) continue;
      for (const side of ['src', 'dst'] as const) {
        const [first, second] = [before.rule[side], after.rule[side]];
        if (first.some((name) => second.includes(name))) continue;
        const holding = (names: readonly string[]) =>
          names.find((name) => !isSystemGroup(name) && holds(this.#groups.get(name)!, connection[side]));
        const [one, other] = [holding(first), holding(second)];
        if (one === undefined || other === undefined) continue;
        const message = `groups ${quoted(one)} and ${quoted(other)} overlap: there ${ruleName(before)} says ${before.action}, before ${ruleName(after)} says ${after.action}`;
        const rules = [before.name, after.name];
        yield finding({
          kind: 'overlap',
          level: 'info',
          message,
          rules,
          groups: [one, other],
          by: connection,
        });
      }
    }
  }

  *#broad({ rules }: Coverage, isExact: boolean): Generator<Finding> {
    const isBroad = (name: string) =>
      addresses4(this.#groups.get(name)?.parts.flat() ?? []) >= BROAD_ADDRESSES;
    const broadGroups = new Set([...this.#named].filter(isBroad));
    for (const { rule, reached } of rules) {
      if (!rule.enforced || rule.action !== 'PERMIT' || rule.rule.protocol === 'ICMP') continue;
      if (isExact && reached === undefined) continue;
      const broad = rule.rule.dst.find((name) => broadGroups.has(name));
      if (rule.rule.portRanges.length > 0 || broad === undefined) continue;
      const message = `${ruleName(rule)} permits every port to group ${quoted(broad)}: name ports, or narrower destinations`;
      const rules = [rule.name];
      yield finding({ kind: 'over-broad', level: 'warning', message, rules, groups: [broad], by: reached });
    }
  }

  *#neverHit(): Generator<Finding> {
    for (const rule of this.#policy.rules) {
      if (this.#decisions?.[rule.name] !== 0) continue;
      const message = `${ruleName(rule)} has decided of no connection since the gateway knows it`;
      yield finding({ kind: 'never-hit', level: 'info', message, rules: [rule.name] });
    }
  }

  *#forgotten(): Generator<Finding> {
    if (this.#policy.byDefault.action === 'PERMIT') return;
    const services = [
      ['dns-forgotten', 'DNS (udp 53)', PROTOCOL_UDP, DNS_PORT],
      ['dns-forgotten', 'DNS (tcp 53, for long answers)', PROTOCOL_TCP, DNS_PORT],
      ['ntp-forgotten', 'NTP (udp 123)', PROTOCOL_UDP, NTP_PORT],
    ] as const;
    const told = new Set<Finding['kind']>();
    for (const [kind, what, protocol, port] of services) {
      const without = this.#sourcesWithout(protocol, port);
      const [first] = without;
      if (first === undefined || told.has(kind)) continue;
      told.add(kind);
      const groups = without.map(({ group }) => group);
      const message = `no rule permits ${what} from ${groups.map(quoted).join(', ')}, if it goes by the gateway`;
      const by = { ...first.ends, protocol, dstPort: port };
      yield {
        ...finding({ kind, level: 'info', message, rules: [first.rule.name], groups, by }),
        id: kind,
      };
    }
  }

  /** Groups that some rule permits something, and none permits this service, each with a connection that shows it. */
  #sourcesWithout(protocol: number, port: number) {
    const permits = this.#policy.rules.filter(({ enforced, action }) => enforced && action === 'PERMIT');
    const serving = permits.filter(({ rule }) => matchesService(rule, protocol, port));
    const found = new Map<
      string,
      { group: string; rule: RuleInForce; ends: Pick<Connection, 'src' | 'dst'> }
    >();
    for (const rule of permits) {
      for (const group of rule.rule.src.filter((name) => !isSystemGroup(name) && !found.has(name))) {
        const ends = this.#endsOf(group, rule.rule.dst);
        const isServed = (src: Address) =>
          serving.some(({ rule }) => rule.src.some((name) => holds(this.#groups.get(name)!, src)));
        if (ends !== undefined && !isServed(ends.src)) found.set(group, { group, rule, ends });
      }
    }
    return [...found.values()];
  }

  /** An address of a group, and one of the same family of others. */
  #endsOf(group: string, others: readonly string[]): Pick<Connection, 'src' | 'dst'> | undefined {
    const first = (names: readonly string[], family: Family): Address | undefined =>
      names
        .flatMap((name) => this.#groups.get(name)?.parts ?? [])
        .flatMap((part) => part.find((prefix) => prefix.family === family) ?? [])
        .map(({ value }) => ({ family, value }))[0];
    for (const family of FAMILIES) {
      const [src, dst] = [first([group], family), first(others, family)];
      if (src !== undefined && dst !== undefined) return { src, dst };
    }
    return undefined;
  }
}

/**
 * What in a policy is probably not what was meant, each with a connection that shows it. Exact: every kind of
 * connection that rules tell apart is gone through, up to limits that a finding names. Cost: as a compilation, and
 * for each distinct list of rules its rules times its services.
 */
export function lint(input: LintInput, limits: LintLimits = LINT_LIMITS): Finding[] {
  const counts = new Map<Finding['kind'], number>();
  const kept: Finding[] = [];
  for (const found of new Linter(input, limits).findings()) {
    const count = (counts.get(found.kind) ?? 0) + 1;
    counts.set(found.kind, count);
    if (count <= limits.findingsMax) kept.push(found);
  }
  for (const [kind, count] of counts) {
    if (count <= limits.findingsMax) continue;
    const message = `${count - limits.findingsMax} findings of kind ${kind} are left out, the limit is ${limits.findingsMax}`;
    kept.push({ ...finding({ kind: 'limit', level: 'info', message }), id: `limit/${kind}` });
  }
  return kept;
}
