import { Matcher } from 'sluice-gateway/matcher/matcher.js';
import type { Address } from 'sluice-gateway/net/address.js';
import { type Prefix, parsePrefix, prefixContains } from 'sluice-gateway/net/prefix.js';
import { evaluate, type GroupPrefixes, matchesService } from 'sluice-gateway/policy/evaluate.js';
import { PROTOCOL_UDP, policyInForce } from 'sluice-gateway/policy/in-force.js';
import type { Policy, PolicyRule } from 'sluice-gateway/policy/model.js';
import { hits } from '../data/addresses.js';
import { policyAtScale, unpack } from '../data/policy.js';
import type { Random } from '../data/random.js';

/** Policy with the groups that it names. */
export interface PolicyData {
  readonly policy: Policy;
  readonly groups: GroupPrefixes;
}

/** A datagram of the race, by what policy looks at. */
export interface Pair {
  readonly src: Address;
  readonly dst: Address;
  readonly port: number;
}

/** What today's compiler loads in half a minute. */
export const LARGE = { groups: 200, rules: 1_000, prefixes: 50_000 };

/** Functions live in here, and nothing else that is sent to: the VPCs of `policyAtScale`. */
export const SOURCES = ['10.16.0.0/15', '10.64.0.0/16', '172.20.0.0/16', '100.64.0.0/16'].map(parsePrefix);
/** No address in here is reached through the egress interface. */
const UNREACHED = [...SOURCES, ...['0.0.0.0/8', '127.0.0.0/8', '224.0.0.0/3'].map(parsePrefix)];
const PORT_MIN = 10;
/** Permitted by no rule of the small policy. */
export const DENIED_PORT = PORT_MIN - 1;

const rule = (priority: number, fields: Partial<PolicyRule>): PolicyRule => ({
  ...{ name: `rule ${priority}`, priority, action: 'PERMIT', src: [], dst: [], protocol: 'UDP' },
  ...{ portRanges: [{ lo: PORT_MIN, hi: 65_535 }], logging: false, enforcement: 'ENFORCE' },
  ...fields,
});

/** Ten rules, ten prefixes: every datagram of functions is permitted but to the lowest ports. */
export function smallPolicy(): PolicyData {
  const world = ['0.0.0.0/2', '64.0.0.0/2', '128.0.0.0/2', '192.0.0.0/2'].map(parsePrefix);
  const cloud = ['52.0.0.0/10', '13.32.0.0/11'].map(parsePrefix);
  const from = SOURCES.map((_, index) => `from ${index}`);
  const groups = new Map<string, readonly Prefix[]>([
    ...SOURCES.map((prefix, index): [string, Prefix[]] => [from[index]!, [prefix]]),
    ['world', world],
    ['cloud', cloud],
  ]);
  const rules = [
    rule(0, { action: 'DENY', src: from, dst: ['world'], protocol: 'ICMP', portRanges: [] }),
    rule(1, { src: from, dst: ['cloud'], protocol: 'TCP', portRanges: [{ lo: 443, hi: 443 }] }),
    ...from.map((name, index) => rule(2 + index, { src: [name], dst: ['cloud'] })),
    ...from.map((name, index) => rule(6 + index, { src: [name], dst: ['world'] })),
  ];
  return { policy: { rules, defaultAction: { action: 'DENY', logging: false } }, groups };
}

export function largePolicy(seed: number): PolicyData {
  const { policy, groups } = policyAtScale({ ...LARGE, overlap: 'realistic', seed });
  return { policy, groups: new Map([...groups].map(([name, packed]) => [name, unpack(packed)])) };
}

/** What policy says of a datagram, by a table of groups: fast enough for a hundred thousand questions. */
export function judgeOf({ policy, groups }: PolicyData): (pair: Pair) => boolean {
  const matcher = Matcher.build({
    groups: [...groups].map(([name, prefixes]) => ({ name, prefixes })),
    functions: [],
    excluded: [],
  });
  const bySource = new Map<string, number[]>();
  for (const [index, { src, enforcement }] of policy.rules.entries()) {
    if (enforcement !== 'ENFORCE') continue;
    for (const name of src) bySource.set(name, [...(bySource.get(name) ?? []), index]);
  }
  return ({ src, dst, port }) => {
    const to = new Set(matcher.groupsOf(dst));
    const indexes = matcher.groupsOf(src).flatMap((name) => bySource.get(name) ?? []);
    const first = indexes
      .sort((a, b) => a - b)
      .map((index) => policy.rules[index]!)
      .find((one) => one.dst.some((name) => to.has(name)) && matchesService(one, PROTOCOL_UDP, port));
    return (first?.action ?? policy.defaultAction.action) === 'PERMIT';
  };
}

const SLOW_CHECKS = 100;

/** So many datagrams between members of groups that rules name, each pair once, which policy permits, or denies. */
export function choosePairs(
  data: PolicyData,
  count: number,
  isPermitted: boolean,
  random: Random,
): readonly Pair[] {
  const { policy, groups } = data;
  const judge = judgeOf(data);
  const members = (names: readonly string[]) =>
    names.flatMap((name) => groups.get(name)!).filter(({ family }) => family === 4);
  const candidates = policy.rules
    .filter(({ protocol, action }) => {
      return (protocol === 'UDP' || protocol === 'ANY') && (action === 'PERMIT') === isPermitted;
    })
    .map(({ src, dst, portRanges }) => {
      const from = members(src).filter(({ length }) => length > 0);
      return { from: from.length === 0 ? SOURCES : from, to: members(dst), portRanges };
    })
    .filter(({ to }) => to.length > 0);
  const pairs = new Map<string, Pair>();
  for (let tries = 0; pairs.size < count; tries++) {
    if (tries > 100 * count) throw new Error(`Cannot choose pairs: found ${pairs.size} of ${count}`);
    const { from, to, portRanges } = random.pick(candidates);
    const { lo, hi } = portRanges.length === 0 ? { lo: 1_024, hi: 65_535 } : random.pick(portRanges);
    const [src, dst] = [hits(from, 1, random)[0]!, hits(to, 1, random)[0]!];
    if (!SOURCES.some((prefix) => prefixContains(prefix, src))) continue;
    if (UNREACHED.some((prefix) => prefixContains(prefix, dst))) continue;
    const pair = { src, dst, port: lo + random.below(hi - lo + 1) };
    if (judge(pair) === isPermitted) pairs.set(`${src.value} ${dst.value}`, pair);
  }
  const chosen = [...pairs.values()];
  const inForce = policyInForce(policy, new Date());
  for (const { src, dst, port } of chosen.slice(0, SLOW_CHECKS)) {
    const { decided } = evaluate(inForce, groups, [], { src, dst, protocol: PROTOCOL_UDP, dstPort: port });
    if ((decided.action === 'PERMIT') !== isPermitted) throw new Error('Cannot race: table and model differ');
  }
  return chosen;
}
