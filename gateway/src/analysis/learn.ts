import type { Matcher } from '../matcher/matcher.js';
import { type Address, readAddress } from '../net/address.js';
import { BITS } from '../net/family.js';
import { type Prefix, prefixContains, prefixOf, sortPrefixes } from '../net/prefix.js';
import { PROTOCOL_TCP, PROTOCOL_UDP, PROTOCOLS_ICMP } from '../policy/in-force.js';
import { isSystemGroup, type PolicyRule, type PortRange, type Protocol } from '../policy/model.js';
import { SNAPSHOT_LIMITS } from '../snapshot/format.js';
import type { LearnAnswer } from './output.js';
import type { RecordedFlow, SkipReason } from './recorded.js';
import { Addresses } from './simulate.js';

/** Pairs of destination and service that are kept. */
const SERVICES_MAX = 1_000_000;
/** Priorities of the proposed rules are apart so far, so that others fit in between. */
const PRIORITY_STEP = 10;

/** What learn goes by. */
export interface LearnInput {
  readonly group: string;
  /** Whether its members are known; else the records say who was one. */
  readonly isResolved: boolean;
  readonly matcher: Pick<Matcher, 'groupsOf'>;
  /** How many prefixes each group has: of several that hold a destination the smallest is taken. */
  readonly sizes: ReadonlyMap<string, number>;
  /** A group of destinations that no group holds has at most so many prefixes. */
  readonly prefixesMax: number;
  /** What policy decides of a flow by a rule in force; undefined where it has none for it. */
  readonly enforcedRule: (
    flow: RecordedFlow,
  ) => { readonly name: string; readonly action: string } | undefined;
}

/** A group that the proposal defines. */
export interface LearntGroup {
  readonly name: string;
  readonly prefixes: readonly Prefix[];
}

/** The least policy that permits what was seen: groups that exist by name, and new ones. */
export interface Proposal {
  readonly groups: readonly LearntGroup[];
  readonly existing: readonly string[];
  readonly rules: readonly PolicyRule[];
  readonly summary: Omit<LearnAnswer, 'policy' | 'format'>;
}

const PROTOCOL_NAME = new Map<number, Protocol>([
  [PROTOCOL_TCP, 'TCP'],
  [PROTOCOL_UDP, 'UDP'],
  ...PROTOCOLS_ICMP.map((number) => [number, 'ICMP'] as const),
]);

/** Ports as ranges, neighbours joined; where those are too many, the nearest are joined over what lies between. */
export function portRangesOf(ports: Iterable<number>): PortRange[] {
  const ranges: { lo: number; hi: number }[] = [];
  for (const port of [...ports].sort((a, b) => a - b)) {
    const last = ranges.at(-1);
    if (last !== undefined && port <= last.hi + 1) last.hi = port;
    else ranges.push({ lo: port, hi: port });
  }
  while (ranges.length > SNAPSHOT_LIMITS.portRangesMax) {
    const gaps = ranges.slice(1).map(({ lo }, index) => lo - ranges[index]!.hi);
    const at = gaps.indexOf(Math.min(...gaps));
    ranges.splice(at, 2, { lo: ranges[at]!.lo, hi: ranges[at + 1]!.hi });
  }
  return ranges;
}

/** The longest prefix that holds both. */
function commonPrefix(a: Prefix, b: Prefix): Prefix {
  let length = Math.min(a.length, b.length);
  while (prefixOf(a, length).value !== prefixOf(b, length).value) length--;
  return prefixOf(a, length);
}

/** Ascending prefixes without those that lie in others, halves of one prefix joined. */
function joined(ascending: readonly Prefix[]): Prefix[] {
  const kept: Prefix[] = [];
  for (const prefix of ascending) {
    if (kept.length > 0 && prefixContains(kept.at(-1)!, prefix)) continue;
    kept.push(prefix);
    for (;;) {
      const [a, b] = [kept.at(-2), kept.at(-1)!];
      if (a?.family !== b.family || a.length !== b.length) break;
      const both = commonPrefix(a, b);
      if (both.length !== a.length - 1) break;
      kept.splice(-2, 2, both);
    }
  }
  return kept;
}

/**
 * Addresses in at most so many prefixes, and at least one a family: what lies nearest together is joined, over what
 * lies between. Cost: as sorting.
 */
export function mergePrefixes(addresses: Iterable<Address>, countMax: number): Prefix[] {
  const single = ({ family, value }: Address) => ({ family, value, length: BITS[family] });
  const exact = joined(sortPrefixes([...addresses].map(single)));
  if (exact.length <= countMax) return exact;
  const widths = exact.slice(1).map((prefix, index) => {
    const before = exact[index]!;
    if (before.family !== prefix.family) return Number.POSITIVE_INFINITY;
    return BITS[prefix.family] - commonPrefix(before, prefix).length;
  });
  const families = new Set(exact.map(({ family }) => family)).size;
  const widest = [...widths.keys()].sort((a, b) => widths[b]! - widths[a]!);
  const cuts = widest.slice(0, Math.max(countMax, families) - 1).sort((a, b) => a - b);
  const runs = [...cuts, exact.length - 1].map((end, index) => {
    const first = index === 0 ? 0 : cuts[index - 1]! + 1;
    return commonPrefix(exact[first]!, exact[end]!);
  });
  return joined(sortPrefixes(runs));
}

/** Ports by protocol; none where it has none. */
type Services = Map<Protocol, Set<number>>;

/** Destinations that no group holds, under the same services. */
interface Pool {
  readonly services: Services;
  readonly addresses: Address[];
}

/** Gathers what a group was seen to reach while nothing refused or permitted it by a rule in force. */
export class Learner {
  readonly #input: LearnInput;
  readonly #addresses: Addresses;
  /** Services by destination address. */
  readonly #seen = new Map<string, Services>();
  readonly #denied = new Map<string, number>();
  readonly #counts = { records: 0, learnt: 0, others: 0, permitted: 0, denied: 0, unreadable: 0, omitted: 0 };
  #services = 0;

  constructor(input: LearnInput) {
    this.#input = input;
    this.#addresses = new Addresses(input.matcher);
  }

  take(read: RecordedFlow | SkipReason): void {
    const counts = this.#counts;
    counts.records++;
    if (typeof read === 'string') {
      if (read === 'unreadable') counts.unreadable++;
      else counts.others++;
      return;
    }
    const [src, dst] = [this.#addresses.of(read.src), this.#addresses.of(read.dst)];
    if (src === undefined || dst?.family !== src.family) counts.unreadable++;
    else if (!this.#isOfGroup(read)) counts.others++;
    else this.#learn(read);
  }

  #isOfGroup({ src, groups }: RecordedFlow): boolean {
    const { group, isResolved } = this.#input;
    return isResolved ? this.isMember(src) : groups?.includes(group) === true;
  }

  /** Whether the group holds an address now. */
  isMember(ip: string): boolean {
    return this.#addresses.of(ip)?.groups.includes(this.#input.group) === true;
  }

  #learn(flow: RecordedFlow): void {
    const counts = this.#counts;
    const rule = this.#input.enforcedRule(flow);
    if (rule?.action === 'PERMIT') {
      counts.permitted++;
      return;
    }
    if (rule !== undefined) {
      counts.denied++;
      this.#denied.set(rule.name, (this.#denied.get(rule.name) ?? 0) + 1);
      return;
    }
    const protocol = PROTOCOL_NAME.get(flow.protocol) ?? 'ANY';
    const hasPorts = protocol === 'TCP' || protocol === 'UDP';
    if (hasPorts && flow.dstPort === 0) {
      counts.unreadable++;
      return;
    }
    const services: Services = this.#seen.get(flow.dst) ?? new Map();
    const ports = services.get(protocol) ?? new Set<number>();
    const isNew = !services.has(protocol) || (hasPorts && !ports.has(flow.dstPort));
    if (isNew && this.#services >= SERVICES_MAX) {
      counts.omitted++;
      return;
    }
    if (isNew) this.#services++;
    counts.learnt++;
    if (hasPorts) ports.add(flow.dstPort);
    this.#seen.set(flow.dst, services.set(protocol, ports));
  }

  /** The smallest group that exists and holds a destination. */
  #groupOf(address: Address): string | undefined {
    const { group, matcher, sizes } = this.#input;
    return matcher
      .groupsOf(address)
      .filter((name) => name !== group && !isSystemGroup(name))
      .toSorted((a, b) => (sizes.get(a) ?? 0) - (sizes.get(b) ?? 0))[0];
  }

  /** The least policy that permits what was seen. */
  proposal(): Proposal {
    const { group, prefixesMax } = this.#input;
    const byGroup = new Map<string, Services>();
    const pools = new Map<string, Pool>();
    for (const [text, services] of this.#seen) {
      const address = readAddress(text)!;
      const existing = this.#groupOf(address);
      if (existing !== undefined) {
        byGroup.set(existing, merge(byGroup.get(existing), services));
        continue;
      }
      const key = signature(services, pools.size < POOLS_MAX);
      const pool: Pool = pools.get(key) ?? { services: new Map(), addresses: [] };
      pools.set(key, { services: merge(pool.services, services), addresses: pool.addresses });
      pool.addresses.push(address);
    }
    const existing = [...byGroup.keys()].sort();
    const groups = [...pools.values()].map(({ addresses }, index) => ({
      name: `${group.slice(0, NAME_LENGTH_MAX)}-learnt-${index + 1}`,
      prefixes: mergePrefixes(addresses, prefixesMax),
    }));
    const targets: (readonly [string, Services])[] = [
      ...existing.map((name) => [name, byGroup.get(name)!] as const),
      ...[...pools.values()].map(({ services }, index) => [groups[index]!.name, services] as const),
    ];
    const rules = targets.flatMap(([target, services]) => rulesOf(group, target, services));
    return {
      ...{ groups, existing },
      rules: rules.map((rule, index) => ({
        ...rule,
        name: rules.findIndex(({ name }) => name === rule.name) < index ? `${rule.name}-${index}` : rule.name,
        priority: (index + 1) * PRIORITY_STEP,
      })),
      summary: {
        group,
        ...this.#counts,
        deniedBy: [...this.#denied].map(([rule, records]) => ({ rule, records })),
        destinations: this.#seen.size,
        rules: rules.length,
      },
    };
  }
}

/** Destinations that no group holds make at most so many groups by their ports; the rest are told apart by protocol. */
const POOLS_MAX = 100;
/** Of the names that names are made of. */
const NAME_LENGTH_MAX = 100;

function signature(services: Services, withPorts: boolean): string {
  const texts = [...services].map(([protocol, ports]) =>
    withPorts ? `${protocol} ${[...ports].sort((a, b) => a - b).join()}` : protocol,
  );
  return texts.sort().join(';');
}

function merge(into: Services = new Map(), more: Services): Services {
  for (const [protocol, ports] of more) into.set(protocol, (into.get(protocol) ?? new Set()).union(ports));
  return into;
}

/** A rule a protocol; one for all where a protocol was seen that rules can't name. */
function rulesOf(group: string, target: string, services: Services): PolicyRule[] {
  const all = services.has('ANY') ? [['ANY', new Set<number>()] as const] : [...services];
  return all.map(([protocol, ports]) => ({
    name: `${group.slice(0, NAME_LENGTH_MAX)}-to-${target.slice(0, NAME_LENGTH_MAX)}-${protocol.toLowerCase()}`,
    ...{ priority: 0, action: 'PERMIT', src: [group], dst: [target], protocol },
    ...{ portRanges: portRangesOf(ports), logging: true, enforcement: 'ENFORCE' },
  }));
}
