/** What every resource has: where it lies, and when AWS last said that it is there, RFC 3339. */
interface Placed {
  readonly accountId: string;
  readonly region: string;
  /** When the call began that last gave it; what is not refreshed keeps it, and so grows old. */
  readonly seenAt: string;
}

/** What EC2 gives tags. */
interface Resource extends Placed {
  readonly id: string;
  readonly tags: Readonly<Record<string, string>>;
}

/** By what Lambda chooses the interfaces of a version of a function: one for each subnet with these security groups. */
export interface VpcConfiguration {
  readonly subnetIds: readonly string[];
  readonly securityGroupIds: readonly string[];
}

/** A Lambda function, as far as it matters for its identity on the network. */
export interface LambdaFunction extends Placed, VpcConfiguration {
  readonly arn: string;
  readonly name: string;
  /** Absent for a function outside any VPC: its traffic does not pass the gateway and can't be enforced. */
  readonly vpcId?: string;
  /** Those of the versions that were asked for, where they differ: then its own lists are of all of them. */
  readonly versions?: readonly VpcConfiguration[];
  readonly ipv6AllowedForDualStack: boolean;
  /** Means nothing where the scope never learnt `tags`. */
  readonly tags: Readonly<Record<string, string>>;
}

/**
 * The AWS resource; `cidrs` holds its IPv4 block and all associated IPv6 blocks. `accountId` is the account
 * that sees it: a subnet shared between accounts is listed once for each that was asked.
 */
export interface Subnet extends Resource {
  readonly vpcId: string;
  /** The availability zone, such as eu-central-1a. */
  readonly zone: string;
  readonly cidrs: readonly string[];
}

export interface Vpc extends Resource {
  readonly cidrs: readonly string[];
}

/** An interface of Lambda's: one for each subnet and set of security groups, whatever functions use it. */
export interface NetworkInterface extends Placed {
  readonly id: string;
  readonly vpcId: string;
  readonly subnetId: string;
  readonly securityGroupIds: readonly string[];
  readonly interfaceType: string;
  readonly description: string;
  /** Private IPv4 addresses, then IPv6, each in order. */
  readonly addresses: readonly string[];
}

/** A virtual machine that runs or may run again. */
export interface Instance extends Resource {
  readonly vpcId: string;
  readonly subnetId: string;
  /** Of all its interfaces: private IPv4 addresses, then IPv6, each in order. */
  readonly addresses: readonly string[];
}

/** A managed prefix list, the customer's or AWS's own. */
export interface PrefixList extends Resource {
  readonly name: string;
  readonly cidrs: readonly string[];
}

/**
 * What of a scope is read beside functions, subnets and VPCs; `tags` are those of functions. Each may be left
 * out by configuration or for want of a permission.
 */
export const OPTIONAL_PARTS = ['tags', 'interfaces', 'instances', 'prefixLists'] as const;
export type OptionalPart = (typeof OPTIONAL_PARTS)[number];

/**
 * One account and region. `refreshedAt` is when the last complete refresh of functions, subnets and VPCs began:
 * absent, nothing was ever learnt here and groups that depend on it are unresolved. `learntAt` says the same of
 * each optional part. `error` is why the newest refresh failed, in whole or of a part; what was known stays.
 */
export interface Scope {
  readonly accountId: string;
  readonly region: string;
  readonly refreshedAt?: string;
  readonly learntAt: Readonly<Partial<Record<OptionalPart, string>>>;
  readonly error?: string;
}

/** What is known of AWS, sorted by ARN or id within each list, so that equal knowledge is equal data. */
export interface Inventory {
  readonly scopes: readonly Scope[];
  readonly functions: readonly LambdaFunction[];
  readonly subnets: readonly Subnet[];
  readonly vpcs: readonly Vpc[];
  readonly interfaces: readonly NetworkInterface[];
  readonly instances: readonly Instance[];
  readonly prefixLists: readonly PrefixList[];
}

/** Before anything was learnt. */
export function emptyInventory(): Inventory {
  return { scopes: [], functions: [], subnets: [], vpcs: [], interfaces: [], instances: [], prefixLists: [] };
}

/** Of a subnet that several accounts share, as it was seen last. */
export function subnetsById({ subnets }: Pick<Inventory, 'subnets'>): ReadonlyMap<string, Subnet> {
  const byId = new Map<string, Subnet>();
  for (const subnet of subnets) {
    const known = byId.get(subnet.id);
    if (known === undefined || known.seenAt <= subnet.seenAt) byId.set(subnet.id, subnet);
  }
  return byId;
}

/**
 * A subnet that a function names and its scope does not list: just deleted, or no longer shared with the
 * account.
 */
export interface MissingSubnet {
  readonly functionArn: string;
  readonly subnetId: string;
}

/**
 * Functions' subnets that the inventory does not know, whose addresses no group can hold; in order of ARN.
 */
export function missingSubnets(inventory: Inventory): MissingSubnet[] {
  const known = Map.groupBy(inventory.subnets, ({ id }) => id);
  const isKnown = ({ accountId, region }: LambdaFunction, subnetId: string) =>
    known.get(subnetId)?.some((subnet) => subnet.accountId === accountId && subnet.region === region) ===
    true;
  const missing: MissingSubnet[] = [];
  for (const fn of inventory.functions)
    for (const subnetId of fn.subnetIds)
      if (!isKnown(fn, subnetId)) missing.push({ functionArn: fn.arn, subnetId });
  return missing;
}
