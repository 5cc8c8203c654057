import type { Prefix } from 'sluice-gateway/net/prefix.js';
import type { Policy } from 'sluice-gateway/policy/model.js';
import type { Diagnostic, Position } from './diagnostics.js';
import type { GroupInput } from './schema.js';

/** Conditions on a resource, all of which must hold; absent means any. Which of them a type takes: schema.ts. */
export interface Conditions {
  /** ARN of a function, id of any other resource. */
  readonly id?: string | undefined;
  /** A glob: over the name of a function, the Name tag of any other resource. */
  readonly name?: string | undefined;
  readonly accountId?: string | undefined;
  readonly region?: string | undefined;
  readonly zone?: string | undefined;
  readonly vpcId?: string | undefined;
  /** One of the resource's security groups. */
  readonly securityGroup?: string | undefined;
  /** Globs over the values of tags, which must all be there. */
  readonly tags?: Readonly<Record<string, string>> | undefined;
}

export const RESOURCE_TYPES = ['serverless', 'vm', 'subnet', 'vpc'] as const;
export type ResourceType = (typeof RESOURCE_TYPES)[number];

interface Placed {
  readonly at: Position;
}

interface CidrSelector extends Placed {
  readonly type: 'cidr';
  readonly prefix: Prefix;
}

/** The members of another group. */
interface GroupSelector extends Placed {
  readonly type: 'group';
  readonly group: string;
}

interface FqdnSelector extends Placed {
  readonly type: 'fqdn';
  readonly fqdn: string;
}

/** Managed prefix lists, by id or by a glob over their names. */
export interface PrefixListSelector extends Placed {
  readonly type: 'prefixList';
  readonly prefixList: string;
  readonly accountId?: string | undefined;
  readonly region?: string | undefined;
}

/** What of which feed: AWS's own ranges, a list of the configuration's, or countries. */
export type FeedQuery =
  | { readonly external: 'aws'; readonly service?: string | undefined; readonly region?: string | undefined }
  | { readonly external: 'list'; readonly name: string }
  | {
      readonly external: 'geo';
      readonly country_iso_code?: string | undefined;
      readonly continent_code?: string | undefined;
      readonly is_in_eu?: boolean | undefined;
    };

interface FeedSelector extends Placed {
  readonly type: 'external';
  readonly query: FeedQuery;
}

/** What says addresses rather than resources. */
export type AddressSelector = CidrSelector | GroupSelector | FqdnSelector | PrefixListSelector | FeedSelector;

interface ConditionSelector extends Conditions, Placed {
  readonly type: 'conditions';
}

interface Negatable {
  /** Resources of the same type, or addresses, that are taken away. */
  readonly not?: ConditionSelector | AddressSelector;
}

export interface ResourceExpression extends Conditions, Negatable, Placed {
  readonly type: ResourceType;
}

/** One AND of conditions. */
export type Expression = ResourceExpression | (AddressSelector & { readonly not?: AddressSelector });

/** A SmartGroup as written: the union of its expressions. */
export interface GroupSpec {
  readonly name: string;
  readonly expressions: readonly Expression[];
  /** What a function brings: the blocks of its subnets, or the addresses of its network interfaces. */
  readonly resolve: 'subnets' | 'eni';
  readonly at: Position;
}

/** What policy files say, checked: every name in it is defined. */
export interface LoadedPolicy {
  /** Rules in the order of evaluation. */
  readonly policy: Policy;
  readonly groups: readonly GroupSpec[];
  /** Each group in the words of our own form, by its name. */
  readonly written: ReadonlyMap<string, GroupInput>;
  /** Where each rule stands, by its name. */
  readonly places: ReadonlyMap<string, Position>;
  readonly warnings: readonly Diagnostic[];
  /** Of the files that it was read from. */
  readonly digest: string;
}

/** What identifies the content of a name or feed: the same text for the same addresses. */
export function feedKey(selector: FqdnSelector | FeedSelector): string {
  if (selector.type === 'fqdn') return `fqdn ${selector.fqdn}`;
  const { external, ...rest } = selector.query;
  const given = Object.entries(rest).filter(([, value]) => value !== undefined);
  return ['feed', external, ...given.map(([key, value]) => `${key}=${String(value)}`)].join(' ');
}

/** Every name and feed that the groups speak of. */
export function feedsOf(groups: readonly GroupSpec[]): ReadonlyMap<string, FqdnSelector | FeedSelector> {
  const selectors = groups.flatMap(({ expressions }) =>
    expressions.flatMap((expression) => (expression.not ? [expression, expression.not] : [expression])),
  );
  const feeds = selectors.filter((one) => one.type === 'fqdn' || one.type === 'external');
  return new Map(feeds.map((feed) => [feedKey(feed), feed]));
}
