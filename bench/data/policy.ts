import { FAMILIES, type Family } from 'sluice-gateway/net/family.js';
import { type Prefix, parsePrefix } from 'sluice-gateway/net/prefix.js';
import type { Policy, PolicyRule, PortRange } from 'sluice-gateway/policy/model.js';
import { CLOUDS, cloudRange, feedEntry, neighbourhoods, overlapping, within } from './prefixes.js';
import { type Random, seededRandom } from './random.js';

/** What to make; README.md tells what the two kinds of overlap stand for. */
export interface PolicyScale {
  /** All groups, Anywhere included. */
  readonly groups: number;
  readonly rules: number;
  /** Distinct prefixes of all groups together; some are members of more groups than one. */
  readonly prefixes: number;
  readonly overlap: 'realistic' | 'adversarial';
  readonly seed: number;
}

/** Prefixes of one group, unique and ascending: by address, then the shorter first. */
export interface PackedPrefixes {
  /** One word an IPv4 prefix. */
  readonly values4: Uint32Array;
  readonly lengths4: Uint8Array;
  /** Four words an IPv6 prefix, the most significant first. */
  readonly values6: Uint32Array;
  readonly lengths6: Uint8Array;
}

export interface PolicyAtScale {
  readonly groups: ReadonlyMap<string, PackedPrefixes>;
  readonly policy: Policy;
}

const KINDS = ['function', 'feed', 'cloud', 'datacentre', 'saas'] as const;
type Kind = (typeof KINDS)[number];

/**
 * Of 1,000 groups, and of all prefixes: a few feeds hold nearly everything. `skew`: the weight of the n-th group of its
 * kind is n to the power of minus this, so that of 30 feeds the first has a quarter and the last two thousandths.
 */
const SHARES: Readonly<
  Record<Kind, { readonly groups: number; readonly prefixes: number; readonly skew: number }>
> = {
  function: { groups: 0.3, prefixes: 0.003, skew: 0.2 },
  feed: { groups: 0.03, prefixes: 0.877, skew: 1.1 },
  cloud: { groups: 0.12, prefixes: 0.08, skew: 0.8 },
  datacentre: { groups: 0.25, prefixes: 0.01, skew: 0.5 },
  saas: { groups: 0.3, prefixes: 0.03, skew: 0.8 },
};
const SHARE6 = 0.1;
/** Of the prefixes of a group, how many are given to another group of its kind, too. */
const SHARED = { realistic: 0.03, adversarial: 0.2 } as const;

const EVERYTHING = ['0.0.0.0/0', '::/0'].map(parsePrefix);
/** No interval ends after these. */
const TOP = ['255.255.255.255/32', 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128'].map(parsePrefix);
const VPCS4 = ['10.16.0.0/12', '10.64.0.0/11', '172.20.0.0/14', '100.64.0.0/11'].map(parsePrefix);
const VPCS6 = ['2600:1f14:5a0::/56', '2600:1f18:2b10::/56', '2a05:d018:7c0::/56'].map(parsePrefix);
const DATACENTRES4 = ['10.0.0.0/12', '10.128.0.0/9', '172.24.0.0/13', '192.168.0.0/16'].map(parsePrefix);
const DATACENTRES6 = ['fd12:3456:7800::/40', '2001:db8::/32'].map(parsePrefix);

type Make = (family: Family) => Prefix;

/** Blocks that a group has to itself, mostly: its prefixes lie in them. */
type Homes = Readonly<Record<Family, readonly Prefix[]>>;
const HOMES_OF: Readonly<Record<Kind, number>> = { function: 0, feed: 0, cloud: 12, datacentre: 3, saas: 3 };

function makeHomes(kind: Kind, random: Random): Homes {
  const homes = (family: Family) => {
    const outer = kind === 'datacentre' ? (family === 4 ? DATACENTRES4 : DATACENTRES6) : CLOUDS[family];
    const length = family === 4 ? 21 : 48;
    return Array.from({ length: HOMES_OF[kind] }, () => within(random.pick(outer), length, random));
  };
  return { 4: homes(4), 6: homes(6) };
}

/** What members of a group of each kind look like. */
function makers(random: Random): Readonly<Record<Kind, (homes: Homes) => Make>> {
  const near = { 4: neighbourhoods(4, random), 6: neighbourhoods(6, random) };
  return {
    function: () => (family) => {
      if (family === 6) return within(random.pick(VPCS6), random.below(8) === 0 ? 128 : 64, random);
      return within(random.pick(VPCS4), random.below(8) === 0 ? 32 : 24 + random.below(5), random);
    },
    feed: () => (family) => feedEntry(family, near[family], random),
    cloud: (homes) => (family) =>
      random.below(5_000) === 0
        ? cloudRange(family, random)
        : within(
            random.pick(homes[family]),
            family === 4 ? 23 + random.below(10) : 56 + random.below(9),
            random,
          ),
    datacentre: (homes) => (family) =>
      within(random.pick(homes[family]), family === 4 ? 23 + random.below(8) : 56 + random.below(9), random),
    saas: (homes) => (family) =>
      within(random.pick(homes[family]), family === 4 ? 24 + random.below(9) : 56 + random.below(17), random),
  };
}

/** Prefixes of one group while it grows. A key sorts as its prefix does: the address, then the length. */
class Members {
  readonly keys4: number[] = [];
  readonly keys6: bigint[] = [];

  get size(): number {
    return this.keys4.length + this.keys6.length;
  }

  pack(): PackedPrefixes {
    const keys4 = Float64Array.from(this.keys4)
      .sort()
      .filter((key, at, sorted) => key !== sorted[at - 1]);
    const keys6 = this.keys6
      .toSorted((a, b) => (a < b ? -1 : a > b ? 1 : 0))
      .filter((key, at, sorted) => key !== sorted[at - 1]);
    const values6 = new Uint32Array(4 * keys6.length);
    for (const [index, key] of keys6.entries()) {
      for (let word = 0; word < 4; word++)
        values6[4 * index + word] = Number((key >> BigInt(104 - 32 * word)) & 0xffffffffn);
    }
    return {
      values4: Uint32Array.from(keys4, (key) => Math.floor(key / 64)),
      lengths4: Uint8Array.from(keys4, (key) => key % 64),
      values6,
      lengths6: Uint8Array.from(keys6, (key) => Number(key & 0xffn)),
    };
  }
}

/** Gives groups prefixes that no group has yet. */
class Pool {
  readonly #used4 = new Set<number>();
  /** As text: the hash of a bigint takes in its low 64 bits only, which are the same for all /64s. */
  readonly #used6 = new Set<string>();

  /** Whether the prefix was new. */
  give(members: Members, { family, value, length }: Prefix): boolean {
    if (family === 4) {
      const key = Number(value) * 64 + length;
      if (this.#used4.size === this.#used4.add(key).size) return false;
      members.keys4.push(key);
    } else {
      const key = (value << 8n) | BigInt(length);
      if (this.#used6.size === this.#used6.add(key.toString(16)).size) return false;
      members.keys6.push(key);
    }
    return true;
  }

  fill(members: Members, size: number, make: Make): void {
    const size6 = Math.round(size * SHARE6);
    const wanted = { 4: size - size6, 6: size6 };
    for (const family of FAMILIES) {
      const keys = family === 4 ? members.keys4 : members.keys6;
      for (let tries = 0; keys.length < wanted[family]; tries++) {
        if (tries > 100 * size + 10_000)
          throw new Error(`Cannot make policy: a group of ${size} prefixes finds no more that are new`);
        this.give(members, make(family));
      }
    }
  }
}

/** Shares `total` out by weight; everyone gets one at least. */
function shareOut(total: number, weights: readonly number[]): readonly number[] {
  const sum = weights.reduce((a, b) => a + b, 0);
  const rest = total - weights.length;
  if (rest < 0)
    throw new RangeError(`Cannot make policy: ${total} prefixes are too few for ${weights.length} groups`);
  let given = 0;
  let passed = 0;
  return weights.map((weight) => {
    passed += weight;
    const until = Math.round((rest * passed) / sum);
    const share = 1 + until - given;
    given = until;
    return share;
  });
}

interface Group {
  readonly name: string;
  readonly kind: Kind;
  readonly weight: number;
}

function makeGroups(count: number, overlap: PolicyScale['overlap'], random: Random): readonly Group[] {
  const counts = KINDS.map((kind) => Math.max(1, Math.floor(count * SHARES[kind].groups)));
  counts[counts.length - 1]! += count - counts.reduce((a, b) => a + b, 0);
  return KINDS.flatMap((kind, index) => {
    const { prefixes, skew } = SHARES[kind];
    const ranks = Array.from({ length: counts[index]! }, (_, rank) => (rank + 1) ** -skew);
    const sum = ranks.reduce((a, b) => a + b, 0);
    return ranks.map((rank, number) => ({
      name: `${kind}-${number}`,
      kind,
      weight:
        overlap === 'realistic' ? ((prefixes * rank) / sum) * (0.8 + 0.4 * (random.below(1000) / 1000)) : 1,
    }));
  });
}

/** Gives each group some members of another one of its kind. */
function share(groups: readonly Group[], members: readonly Members[], part: number, random: Random): void {
  const own = members.map(({ keys4, keys6 }) => ({ keys4: [...keys4], keys6: [...keys6] }));
  for (const [index, { kind }] of groups.entries()) {
    const first = groups.findIndex((group) => group.kind === kind);
    const last = groups.findLastIndex((group) => group.kind === kind);
    if (first === last) continue;
    const step = 1 + random.below(last - first);
    const from = own[first + ((index - first + step) % (last - first + 1))]!;
    const { keys4, keys6 } = members[index]!;
    const count = (keys: readonly unknown[]) => Math.round(part * keys.length);
    if (from.keys4.length > 0) for (let n = count(keys4); n > 0; n--) keys4.push(random.pick(from.keys4));
    if (from.keys6.length > 0) for (let n = count(keys6); n > 0; n--) keys6.push(random.pick(from.keys6));
  }
}

const port = (lo: number, hi = lo): PortRange => ({ lo, hi });
const TCP_PORTS = [
  ...[[port(443)], [port(443)], [port(443)], [port(5432)], [port(5432)], [port(3306)], [port(6379)]],
  ...[[port(80), port(443)], [port(8000, 8100)], [port(9092, 9094)], [port(1521), port(1526), port(2484)]],
];
const UDP_PORTS = [[port(53)], [port(123)], [port(514)], [port(8125)], [port(33434, 33534)]];

type Service = Pick<PolicyRule, 'protocol' | 'portRanges'>;

function makeService(random: Random): Service {
  const kind = random.below(100);
  if (kind < 85) return { protocol: 'TCP', portRanges: random.pick(TCP_PORTS) };
  if (kind < 92) return { protocol: 'UDP', portRanges: random.pick(UDP_PORTS) };
  if (kind < 95) return { protocol: 'ICMP', portRanges: [] };
  return { protocol: 'ANY', portRanges: kind < 98 ? [port(443)] : [] };
}

function someOf(names: readonly string[], countMax: number, random: Random): readonly string[] {
  return [...new Set(Array.from({ length: 1 + random.below(countMax) }, () => random.pick(names)))];
}

/** Feeds are denied to everyone first; then most rules let a function's group reach a few others. */
function makeRules(count: number, groups: readonly Group[], random: Random): readonly PolicyRule[] {
  const named = (kinds: readonly Kind[]) =>
    groups.filter(({ kind }) => kinds.includes(kind)).map(({ name }) => name);
  const [feeds, functions] = [named(['feed']), named(['function'])];
  const destinations = named(['cloud', 'datacentre', 'saas']);
  return Array.from({ length: count }, (_, priority): PolicyRule => {
    const feed = priority < count / 10 ? feeds[priority] : undefined;
    if (feed !== undefined) {
      const body = { protocol: 'ANY', portRanges: [], logging: true, enforcement: 'ENFORCE' } as const;
      return { name: `deny-${feed}`, priority, action: 'DENY', src: ['Anywhere'], dst: [feed], ...body };
    }
    const [action, enforcement] = [random.below(100), random.below(100)];
    return {
      name: `rule-${priority}`,
      priority,
      action: action < 90 ? 'PERMIT' : action < 96 ? 'DENY' : 'REJECT',
      src: someOf(functions, random.below(10) === 0 ? 3 : 1, random),
      dst: random.below(200) === 0 ? ['Anywhere'] : someOf(destinations, 3, random),
      ...makeService(random),
      logging: random.below(5) === 0,
      enforcement: enforcement < 94 ? 'ENFORCE' : enforcement < 97 ? 'MONITOR' : 'DISABLE',
    };
  });
}

/** A whole policy with its groups, the same for the same arguments. Throws RangeError below 10 groups of 10. */
export function policyAtScale(scale: PolicyScale): PolicyAtScale {
  if (scale.groups < 10 || scale.prefixes < 10 * scale.groups)
    throw new RangeError(
      `Cannot make policy: ${scale.prefixes} prefixes in ${scale.groups} groups, the least is 10 groups of 10`,
    );
  const random = seededRandom(scale.seed);
  const groups = makeGroups(scale.groups - 1, scale.overlap, random);
  const make = makers(random);
  const anything = { 4: overlapping(4, random), 6: overlapping(6, random) };
  const sizes = shareOut(
    scale.prefixes - EVERYTHING.length,
    groups.map(({ weight }) => weight),
  );
  const pool = new Pool();
  const everything = new Members();
  for (const prefix of EVERYTHING) pool.give(everything, prefix);
  const members = groups.map(() => new Members());
  for (const prefix of TOP) pool.give(members[groups.findIndex(({ kind }) => kind === 'feed')]!, prefix);
  for (const [index, { kind }] of groups.entries()) {
    const homes = makeHomes(kind, random);
    const maker: Make = scale.overlap === 'realistic' ? make[kind](homes) : (family) => anything[family]();
    pool.fill(members[index]!, sizes[index]!, maker);
  }
  share(groups, members, SHARED[scale.overlap], random);
  const rules = makeRules(scale.rules, groups, random);
  return {
    groups: new Map([
      ['Anywhere', everything.pack()],
      ...groups.map(({ name }, index) => [name, members[index]!.pack()] as const),
    ]),
    policy: { rules, defaultAction: { action: 'DENY', logging: true } },
  };
}

/** How many prefixes a packed group holds. */
export const packedSize = ({ lengths4, lengths6 }: PackedPrefixes): number =>
  lengths4.length + lengths6.length;

/** The same prefixes one by one: IPv4, then IPv6. */
export function unpack({ values4, lengths4, values6, lengths6 }: PackedPrefixes): readonly Prefix[] {
  const value6 = (at: number) =>
    [...values6.subarray(4 * at, 4 * at + 4)].reduce((value, word) => (value << 32n) | BigInt(word), 0n);
  return [
    ...Array.from(lengths4, (length, at): Prefix => ({ family: 4, value: BigInt(values4[at]!), length })),
    ...Array.from(lengths6, (length, at): Prefix => ({ family: 6, value: value6(at), length })),
  ];
}
