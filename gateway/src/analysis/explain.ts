import type { Matcher } from '../matcher/matcher.js';
import { type Address, printAddress } from '../net/address.js';
import type { Connection } from '../policy/evaluate.js';
import { matchesService } from '../policy/evaluate.js';
import { DEFAULT_RULE_NAME, isSystemGroup, type Policy, type PolicyRule } from '../policy/model.js';
import type { Origin } from '../snapshot/provenance.js';
import type { ExplainedRule, ExplainedSide, Explanation, Membership, PassedRule } from './output.js';

/** What an explanation goes by. */
export interface Known {
  readonly policy: Policy;
  readonly matcher: Pick<Matcher, 'groupsOf' | 'functionsOf'>;
  readonly now: Date;
}

const explainedRule = ({ name, priority, action }: PolicyRule): ExplainedRule => ({ name, priority, action });

/** What keeps a rule from deciding of a connection between members of these groups; undefined: it decides. */
function whyPassed(
  rule: PolicyRule,
  src: ReadonlySet<string>,
  dst: ReadonlySet<string>,
  { protocol, dstPort }: Connection,
  now: Date,
): PassedRule['why'] | undefined {
  if (!rule.src.some((name) => src.has(name))) return 'source';
  if (!rule.dst.some((name) => dst.has(name))) return 'destination';
  if (!matchesService(rule, protocol, dstPort)) {
    return matchesService({ ...rule, portRanges: [] }, protocol, dstPort) ? 'port' : 'protocol';
  }
  if (rule.enforcement === 'DISABLE') return 'disabled';
  if (rule.expires !== undefined && Date.parse(rule.expires) <= now.getTime()) return 'expired';
  return rule.enforcement === 'MONITOR' ? 'monitor' : undefined;
}

/** Explains what policy says of a connection at a moment, rule by rule. Cost: linear in the rules. */
export function explain(known: Known, connection: Connection): Explanation {
  const { policy, matcher, now } = known;
  const side = (address: Address): ExplainedSide => {
    const groups = [...matcher.groupsOf(address)];
    return {
      ip: printAddress(address),
      groups,
      functions: matcher.functionsOf(address).map(({ arn, identity }) => ({ arn, identity })),
    };
  };
  const [src, dst] = [side(connection.src), side(connection.dst)];
  const [srcGroups, dstGroups] = [new Set(src.groups), new Set(dst.groups)];
  const passed: PassedRule[] = [];
  for (const rule of policy.rules) {
    const why = whyPassed(rule, srcGroups, dstGroups, connection, now);
    if (why === undefined) {
      return { verdict: rule.action, reason: 'rule', rule: explainedRule(rule), passed, src, dst };
    }
    passed.push({ ...explainedRule(rule), why });
  }
  const { action } = policy.defaultAction;
  const rule = { name: DEFAULT_RULE_NAME, action };
  return { verdict: action, reason: 'default', rule, passed, src, dst };
}

/** Why a prefix that holds an address is in a group; from files it is not known since when. */
type KnownOrigin = Omit<Origin, 'since'> & Partial<Pick<Origin, 'since'>>;

/** The reasons for which an address is in a group, where something keeps them. */
export type OriginsOf = (group: string, address: Address) => Promise<readonly KnownOrigin[]>;

/** A connection, and what is said of it. */
export interface Explained {
  readonly connection: Connection;
  readonly explanation: Explanation;
}

async function membershipsOf(
  side: ExplainedSide,
  address: Address,
  originsOf: OriginsOf,
): Promise<Membership[]> {
  const groups = side.groups.filter((name) => !isSystemGroup(name));
  const memberships = groups.map(
    async (group): Promise<Membership[]> =>
      (await originsOf(group, address)).map(({ group: through, ...origin }) => ({
        ...{ group, ...origin },
        ...(through !== undefined && { through }),
      })),
  );
  return (await Promise.all(memberships)).flat();
}

/** Says of both sides why they are in the groups that policy defines. */
export async function addMemberships(
  { connection, explanation }: Explained,
  originsOf: OriginsOf,
): Promise<Explained> {
  const { src, dst } = explanation;
  const [from, to] = await Promise.all([
    membershipsOf(src, connection.src, originsOf),
    membershipsOf(dst, connection.dst, originsOf),
  ]);
  const sides = { src: { ...src, memberships: from }, dst: { ...dst, memberships: to } };
  return { connection, explanation: { ...explanation, ...sides } };
}
